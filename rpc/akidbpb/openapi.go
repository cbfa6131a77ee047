// SPDX-License-Identifier: Apache-2.0

// Package akidbpb holds the protocol of the public API and what is generated
// from it by `go tool buf generate`.
package akidbpb

import _ "embed"

//go:embed openapi.swagger.json
var openAPI string

// OpenAPI is the generated OpenAPI 2 document of the REST API.
func OpenAPI() []byte { return []byte(openAPI) }
