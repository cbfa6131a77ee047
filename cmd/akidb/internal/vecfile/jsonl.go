// SPDX-License-Identifier: Apache-2.0

package vecfile

import (
	"bufio"
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
)

// maxLineBytes bounds a line: a vector of 16,384 numbers and 64 KiB of payload.
const maxLineBytes = 1 << 20

// jsonl reads one JSON object a line: {"id":…, "vector":[…], …}. An object under
// "metadata" is the payload; without it, all other fields together are.
type jsonl struct {
	path string
	f    *os.File
	r    *lines
	o    Options
	dim  int
}

func openJSONL(path string, o Options) (Reader, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	if o.IDField == "" {
		o.IDField = "id"
	}
	if o.VectorField == "" {
		o.VectorField = "vector"
	}
	return &jsonl{path: path, f: f, r: newLines(path, f), o: o}, nil
}

func (j *jsonl) Next(row *Row) error {
	line, err := j.r.next()
	if err != nil {
		return err
	}
	at := j.r.row - 1
	fields, err := objectOf(line)
	if err != nil {
		return badFile(j.path, "row %d, at byte %d: %v", at, j.r.offset, err)
	}
	*row = Row{}
	if raw, ok := fields[j.o.IDField]; ok {
		if row.ID, err = idText(raw); err != nil {
			return badFile(j.path, "row %d: field %q: %v", at, j.o.IDField, err)
		}
	}
	raw, ok := fields[j.o.VectorField]
	if !ok {
		return badFile(j.path, "row %d: no field %q (--vector-field)", at, j.o.VectorField)
	}
	if row.Vector, err = ParseVector(raw); err != nil {
		return badFile(j.path, "row %d: field %q: %v", at, j.o.VectorField, err)
	}
	if j.dim == 0 {
		j.dim = len(row.Vector)
	}
	if len(row.Vector) != j.dim || j.dim == 0 {
		return badFile(j.path, "row %d: vector of dimension %d, the rows before have %d", at, len(row.Vector), j.dim)
	}
	if meta, ok := fields["metadata"]; ok {
		row.Payload = meta
		return nil
	}
	delete(fields, j.o.IDField)
	delete(fields, j.o.VectorField)
	if len(fields) > 0 {
		row.Payload, err = json.Marshal(fields)
	}
	return err
}

// ParseVector reads a JSON array of numbers. encoding/json takes null for 0, and null
// is what many writers make of NaN.
func ParseVector(text []byte) ([]float32, error) {
	var v []float32
	if err := json.Unmarshal(text, &v); err != nil {
		return nil, err
	}
	if before, _, found := bytes.Cut(text, []byte("null")); found {
		return nil, fmt.Errorf("value %d is null", bytes.Count(before, []byte(",")))
	}
	return v, nil
}

// objectOf takes a line apart. A name that comes twice is refused: one of its
// values would be lost.
func objectOf(line []byte) (map[string]json.RawMessage, error) {
	d := json.NewDecoder(bytes.NewReader(line))
	if open, err := d.Token(); err != nil || open != json.Delim('{') {
		return nil, cmp.Or(err, errors.New("not a JSON object"))
	}
	fields := map[string]json.RawMessage{}
	for d.More() {
		name, err := d.Token()
		if err != nil {
			return nil, err
		}
		key := name.(string) // the decoder takes nothing else there
		if _, twice := fields[key]; twice {
			return nil, fmt.Errorf("field %q is there twice", key)
		}
		var value json.RawMessage
		if err := d.Decode(&value); err != nil {
			return nil, err
		}
		fields[key] = value
	}
	if _, err := d.Token(); err != nil {
		return nil, err
	}
	if _, err := d.Token(); err != io.EOF {
		return nil, errors.New("text after the JSON object")
	}
	return fields, nil
}

// idText takes a string or a whole number.
func idText(raw json.RawMessage) (string, error) {
	var s string
	if json.Unmarshal(raw, &s) == nil {
		return s, nil
	}
	var n int64
	if json.Unmarshal(raw, &n) == nil {
		return fmt.Sprint(n), nil
	}
	return "", fmt.Errorf("%s is neither text nor a whole number", raw)
}

func (j *jsonl) Skip(n int) error { return j.r.skip(n) }
func (j *jsonl) Rows() int        { return -1 }
func (j *jsonl) Dim() int         { return j.dim }
func (j *jsonl) Metric() string   { return "" }
func (j *jsonl) Close() error     { return j.f.Close() }

// lines reads a file line by line and knows where it is.
type lines struct {
	path   string
	r      *bufio.Reader
	row    int   // lines read
	offset int64 // where the last one began
	end    int64
}

func newLines(path string, r io.Reader) *lines {
	return &lines{path: path, r: bufio.NewReaderSize(r, 1<<18)}
}

// next returns the next line that is not empty, without its end.
func (l *lines) next() ([]byte, error) {
	for {
		l.offset = l.end
		var line []byte
		for {
			part, err := l.r.ReadSlice('\n')
			line = append(line, part...)
			if len(line) > maxLineBytes {
				return nil, badFile(l.path, "row %d, at byte %d: a line of more than %d bytes", l.row, l.offset, maxLineBytes)
			}
			if errors.Is(err, bufio.ErrBufferFull) {
				continue
			}
			if err == io.EOF && len(line) == 0 {
				return nil, io.EOF
			}
			if err != nil && err != io.EOF {
				return nil, badFile(l.path, "row %d, at byte %d: %v", l.row, l.offset, err)
			}
			break
		}
		l.end += int64(len(line))
		if line = bytes.TrimSpace(line); len(line) > 0 {
			l.row++
			return line, nil
		}
	}
}

func (l *lines) skip(n int) error {
	for range n {
		if _, err := l.next(); err == io.EOF {
			return badFile(l.path, "it has %d rows, cannot go on after row %d", l.row, n)
		} else if err != nil {
			return err
		}
	}
	return nil
}

// Payloads reads a file of payloads, one JSON object a line.
type Payloads struct {
	path string
	f    *os.File
	r    *lines
}

// OpenPayloads opens a payload file.
func OpenPayloads(path string) (*Payloads, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	return &Payloads{path: path, f: f, r: newLines(path, f)}, nil
}

// Next returns the payload of the next row; io.EOF after the last.
func (p *Payloads) Next() ([]byte, error) {
	line, err := p.r.next()
	if err != nil {
		return nil, err
	}
	if line[0] != '{' || !json.Valid(line) {
		return nil, badFile(p.path, "row %d, at byte %d: not a JSON object", p.r.row-1, p.r.offset)
	}
	return line, nil
}

// Skip passes over n rows.
func (p *Payloads) Skip(n int) error { return p.r.skip(n) }

// Close closes the file.
func (p *Payloads) Close() error { return p.f.Close() }
