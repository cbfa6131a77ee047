// SPDX-License-Identifier: Apache-2.0

package godocs

// Question is what the demo searches for, with packages that answer it.
type Question struct {
	Text     string
	Packages []string
}

// Questions are in a person's words, not in those of the comments.
func Questions() []Question {
	return []Question{
		{"compress a file", []string{"compress/gzip", "compress/zlib", "compress/flate", "compress/bzip2", "compress/lzw"}},
		{"parse a date from text", []string{"time"}},
		{"sort a slice of strings", []string{"sort", "slices"}},
		{"wait until several goroutines have finished", []string{"sync", "testing/synctest"}},
		{"send an HTTP request with a timeout", []string{"net/http", "net/http/httptest", "net"}},
		{"encode a struct as JSON", []string{"encoding/json", "encoding/json/v2"}},
		{"sign a message with an elliptic curve key", []string{"crypto/ecdsa", "crypto/ed25519", "crypto/elliptic", "crypto"}},
	}
}
