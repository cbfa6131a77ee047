// SPDX-License-Identifier: Apache-2.0

package vecfile

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// Folder is a benchmark data set: base vectors, queries and their exact
// nearest neighbours, with payloads and a description.
type Folder struct {
	Name, Metric string
	Base, Query  string
	Neighbors    string // ivecs; empty if there is none
	Payload      string // empty if there is none
}

// OpenFolder reads dir/meta.json and finds the files beside it.
func OpenFolder(dir string) (*Folder, error) {
	f := &Folder{Name: filepath.Base(dir)}
	text, err := os.ReadFile(filepath.Join(dir, "meta.json"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	if err == nil {
		var meta struct{ Name, Metric string }
		if err := json.Unmarshal(text, &meta); err != nil {
			return nil, badFile(filepath.Join(dir, "meta.json"), "%v", err)
		}
		f.Metric = meta.Metric
		if meta.Name != "" {
			f.Name = meta.Name
		}
		switch f.Metric {
		case "ip", "angular", "euclidean":
			f.Metric = map[string]string{"ip": "dot", "angular": "cosine", "euclidean": "l2"}[f.Metric]
		}
	}
	for _, ext := range []string{"fvecs", "bvecs", "npy"} {
		if p := filepath.Join(dir, "base."+ext); f.Base == "" && exists(p) {
			f.Base = p
		}
		if p := filepath.Join(dir, "query."+ext); f.Query == "" && exists(p) {
			f.Query = p
		}
	}
	if p := filepath.Join(dir, "groundtruth.ivecs"); exists(p) {
		f.Neighbors = p
	}
	if p := filepath.Join(dir, "payload.jsonl"); exists(p) {
		f.Payload = p
	}
	if f.Base == "" {
		return nil, fmt.Errorf("%s: no base.fvecs, base.bvecs or base.npy in it", dir)
	}
	return f, nil
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
