// SPDX-License-Identifier: Apache-2.0

package main

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/akidb/akidb/client"
)

// importState remembers how far an import came. Its run is made once and goes
// into every request id, so that batches sent again by a later run of the same
// import are known to the servers, and those of a new import are not.
type importState struct {
	Run        string    `json:"run"`
	File       string    `json:"file"`
	Size       int64     `json:"size"`
	Modified   time.Time `json:"modified"`
	Collection string    `json:"collection_id"`
	Batch      int       `json:"batch"`
	// Of the file of payloads, if there is one.
	PayloadSize     int64     `json:"payload_size,omitzero"`
	PayloadModified time.Time `json:"payload_modified,omitzero"`
	Rows            int       `json:"rows"` // committed, from the beginning

	path  string
	saved time.Time
}

// saveEvery bounds how much is sent again after a crash; sending it again is
// harmless.
const saveEvery = time.Second

// openState reads the state of an interrupted import of this file into this
// collection by the same command, or begins one. What makes other documents of the
// rows, or takes other rows, is another import.
func (j *importJob) openState() (*importState, error) {
	file, err := filepath.Abs(j.path)
	if err != nil {
		return nil, err
	}
	info, err := os.Stat(file)
	if err != nil {
		return nil, err
	}
	dir := j.stateDir
	if dir == "" {
		cache, err := os.UserCacheDir()
		if err != nil {
			cache = os.TempDir()
		}
		dir = filepath.Join(cache, "akidb", "imports")
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	payload := ""
	if j.payload != "" {
		if payload, err = filepath.Abs(j.payload); err != nil {
			return nil, err
		}
	}
	sum := sha256.Sum256(fmt.Appendf(nil, "%q %q %q %q %q %d", file, j.collectionID, j.file, payload, j.idPrefix, j.limit))
	fresh := &importState{Run: client.NewRequestID(), File: file, Size: info.Size(), Modified: info.ModTime().UTC(),
		Collection: j.collectionID, Batch: j.batch, path: filepath.Join(dir, hex.EncodeToString(sum[:12])+".json")}
	if payload != "" {
		info, err := os.Stat(payload)
		if err != nil {
			return nil, err
		}
		fresh.PayloadSize, fresh.PayloadModified = info.Size(), info.ModTime().UTC()
	}
	text, err := os.ReadFile(fresh.path)
	if errors.Is(err, fs.ErrNotExist) || j.restart {
		return fresh, fresh.save()
	}
	if err != nil {
		return nil, err
	}
	old := &importState{path: fresh.path}
	if err := json.Unmarshal(text, old); err != nil {
		return nil, fmt.Errorf("%s is damaged (%w); --restart begins anew", fresh.path, err)
	}
	if old.Size != fresh.Size || !old.Modified.Equal(fresh.Modified) {
		return nil, fmt.Errorf("%s changed since its import was interrupted after %d rows; --restart begins anew", j.path, old.Rows)
	}
	if old.PayloadSize != fresh.PayloadSize || !old.PayloadModified.Equal(fresh.PayloadModified) {
		return nil, fmt.Errorf("%s changed since its import was interrupted after %d rows; --restart begins anew", j.payload, old.Rows)
	}
	if old.Batch != fresh.Batch && old.Rows > 0 {
		return nil, fmt.Errorf("the interrupted import used --batch %d; use it again, or --restart", old.Batch)
	}
	return old, nil
}

// requestID names the batch that begins with a row: a UUIDv8 (RFC 9562) of run
// and row.
func (s *importState) requestID(row int) string {
	sum := sha256.Sum256(fmt.Appendf(nil, "%s/%d", s.Run, row))
	sum[6], sum[8] = sum[6]&0x0f|0x80, sum[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", sum[:4], sum[4:6], sum[6:8], sum[8:10], sum[10:16])
}

// acked notes that the first rows are committed.
func (s *importState) acked(rows int) {
	s.Rows = rows
	if time.Since(s.saved) >= saveEvery {
		_ = s.save() // saved again at the end; an old state only sends more again
	}
}

// save replaces the file at once, so that it is never half written.
func (s *importState) save() error {
	s.saved = time.Now()
	text, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return err
	}
	tmp := s.path + ".tmp"
	if err := os.WriteFile(tmp, text, 0o600); err != nil {
		return err
	}
	return os.Rename(tmp, s.path)
}

func (s *importState) remove() error { return os.Remove(s.path) }

// writeJSON prints one object a line.
func writeJSON(w io.Writer, v any) error { return json.NewEncoder(w).Encode(v) }
