// SPDX-License-Identifier: Apache-2.0

package rpc

import (
	"encoding/json"
	"fmt"
)

// openAPIDocument corrects the generated document where our JSON differs from
// protobuf's: 64-bit integers are numbers, Json and Value stand for themselves,
// and errors have a shape of their own.
func openAPIDocument(generated []byte) ([]byte, error) {
	var doc map[string]any
	if err := json.Unmarshal(generated, &doc); err != nil {
		return nil, fmt.Errorf("rpc: read the generated OpenAPI document: %w", err)
	}
	numbers(doc)
	info, _ := doc["info"].(map[string]any)
	definitions, _ := doc["definitions"].(map[string]any)
	if info == nil || definitions == nil {
		return nil, fmt.Errorf("rpc: the generated OpenAPI document has no info or no definitions")
	}
	info["title"], info["version"] = "AkiDB", "v1"
	info["description"] = "The REST API of AkiDB. Names are snake_case, unknown names are refused."
	definitions["v1Json"] = map[string]any{"description": "Any JSON value; a payload is an object."}
	definitions["v1Value"] = map[string]any{"description": "A string, a number, true or false."}
	definitions["googleRpcStatus"] = errorSchema()
	delete(definitions, "protobufAny")
	return json.Marshal(doc)
}

// numbers turns {"type":"string","format":"uint64"} into an integer wherever it
// stands.
func numbers(v any) {
	switch v := v.(type) {
	case map[string]any:
		if f, _ := v["format"].(string); v["type"] == "string" && (f == "int64" || f == "uint64") {
			v["type"] = "integer"
		}
		for _, inner := range v {
			numbers(inner)
		}
	case []any:
		for _, inner := range v {
			numbers(inner)
		}
	}
}

func errorSchema() map[string]any {
	text := map[string]any{"type": "string"}
	return map[string]any{
		"type": "object",
		"properties": map[string]any{"error": map[string]any{
			"type":     "object",
			"required": []string{"code", "message", "details"},
			"properties": map[string]any{
				"code": text, "message": text,
				"details": map[string]any{
					"type": "object",
					"properties": map[string]any{
						"reason": text, "class": text, "leader_id": text, "leader_grpc": text, "leader_rest": text,
						"retry_after_ms": map[string]any{"type": "integer"},
						"violations": map[string]any{"type": "array", "items": map[string]any{
							"type": "object", "properties": map[string]any{"field": text, "description": text},
						}},
					},
					"additionalProperties": text,
				},
			},
		}},
	}
}
