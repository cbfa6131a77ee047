// SPDX-License-Identifier: Apache-2.0

package node

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"io"
	"io/fs"
	"net"
	"path/filepath"
	"sort"
	"time"

	"github.com/zeebo/xxh3"
	"google.golang.org/protobuf/proto"

	"github.com/akidb/akidb/internal/storage"
	nodev1 "github.com/akidb/akidb/node/nodepb/akidb/node/v1"
)

// manifestSuffix is added to a staged directory's name for its list of files.
const manifestSuffix = ".manifest"

// fetchIdleTimeout ends a transfer on which no byte moved.
const fetchIdleTimeout = 15 * time.Second

// sumKey identifies an unchanged file, so that the checksum of a table that
// stays from export to export is computed once.
type sumKey struct {
	name  string
	size  int64
	mtime int64
}

// sumFiles lists the files below dir with their checksums.
func (s *snapshotStore) sumFiles(dir string) ([]*nodev1.File, error) {
	var files []*nodev1.File
	seen := make(map[sumKey][]byte)
	err := walkFiles(s.fs, dir, "", func(rel string, info fs.FileInfo) error {
		key := sumKey{rel, info.Size(), info.ModTime().UnixNano()}
		s.mu.Lock()
		sum := s.sums[key]
		s.mu.Unlock()
		var err error
		if sum == nil {
			if sum, err = sumFile(s.fs, filepath.Join(dir, rel)); err != nil {
				return err
			}
		}
		seen[key] = sum
		files = append(files, &nodev1.File{Path: filepath.ToSlash(rel), Size: info.Size(), Checksum: sum})
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("node: list export: %w", err)
	}
	s.mu.Lock()
	s.sums = seen
	s.mu.Unlock()
	return files, nil
}

// walkFiles calls f with each file below dir, in order.
func walkFiles(fsys storage.FS, dir, rel string, f func(rel string, info fs.FileInfo) error) error {
	names, err := fsys.List(filepath.Join(dir, rel))
	if err != nil {
		return err
	}
	sort.Strings(names)
	for _, name := range names {
		name = filepath.Join(rel, name)
		info, err := fsys.Stat(filepath.Join(dir, name))
		if err != nil {
			return err
		}
		if info.IsDir() {
			err = walkFiles(fsys, dir, name, f)
		} else {
			err = f(name, info)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func sumFile(fsys storage.FS, path string) ([]byte, error) {
	f, err := fsys.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	h := xxh3.New128()
	if _, err := io.CopyBuffer(h, struct{ io.Reader }{f}, make([]byte, 256<<10)); err != nil {
		return nil, err
	}
	sum := h.Sum128().Bytes()
	return sum[:], nil
}

// serveFetch answers fetch streams: requests one after the other, each a
// uint32 length and a FetchRequest, answered by a byte (0 for an error, then
// the connection ends) and the file's bytes from the offset to its end.
func (s *snapshotStore) serveFetch(c net.Conn) {
	defer c.Close()
	for {
		var head [4]byte
		if _, err := io.ReadFull(c, head[:]); err != nil {
			return
		}
		n := binary.BigEndian.Uint32(head[:])
		if n > 1<<16 {
			return
		}
		b := make([]byte, n)
		if _, err := io.ReadFull(c, b); err != nil {
			return
		}
		var req nodev1.FetchRequest
		if err := proto.Unmarshal(b, &req); err != nil {
			return
		}
		if err := s.sendFile(c, &req); err != nil {
			s.log.Warn("snapshot file not sent", "file", req.Path, "to", c.RemoteAddr().String(), "err", err)
			return
		}
	}
}

func (s *snapshotStore) sendFile(c net.Conn, req *nodev1.FetchRequest) error {
	path, err := s.exportPath(req.ExportId, req.Path)
	if err != nil {
		_, _ = c.Write([]byte{0})
		return err
	}
	f, err := s.fs.Open(path)
	if err != nil {
		_, _ = c.Write([]byte{0})
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err == nil && (req.Offset < 0 || req.Offset > info.Size()) {
		err = fmt.Errorf("%w: offset %d of %d", errInvalid, req.Offset, info.Size())
	}
	if err != nil {
		_, _ = c.Write([]byte{0})
		return err
	}
	w := &idleConn{c}
	if _, err := w.Write([]byte{1}); err != nil {
		return err
	}
	_, err = io.CopyBuffer(struct{ io.Writer }{w}, struct{ io.Reader }{io.NewSectionReader(f, req.Offset, info.Size()-req.Offset)}, make([]byte, 256<<10))
	return err
}

// idleConn moves the deadline with every byte.
type idleConn struct{ net.Conn }

func (c *idleConn) Read(p []byte) (int, error) {
	_ = c.SetReadDeadline(time.Now().Add(fetchIdleTimeout))
	return c.Conn.Read(p)
}

func (c *idleConn) Write(p []byte) (int, error) {
	_ = c.SetWriteDeadline(time.Now().Add(fetchIdleTimeout))
	return c.Conn.Write(p)
}

// stage fetches the files of a manifest that are not here yet and lays them
// out in a directory. What was fetched and verified is kept under its checksum
// if the transfer breaks, also for another manifest: most of a state's files
// stay the same from one snapshot to the next.
func (s *snapshotStore) stage(ctx context.Context, man *nodev1.Manifest,
	dial func(ctx context.Context, addr string) (net.Conn, error)) error {
	var c net.Conn
	defer func() {
		if c != nil {
			c.Close()
		}
	}()
	stop := context.AfterFunc(ctx, func() {})
	defer stop()
	for _, f := range man.Files {
		obj := filepath.Join(s.objects(), hex.EncodeToString(f.Checksum))
		if sum, err := sumFile(s.fs, obj); err == nil {
			if bytes.Equal(sum, f.Checksum) {
				continue
			}
			if err := s.fs.Remove(obj); err != nil {
				return err
			}
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		if c == nil {
			raw, err := dial(ctx, man.SourceAddr)
			if err != nil {
				return fmt.Errorf("node: fetch snapshot from %s: %w", man.SourceAddr, err)
			}
			c = &idleConn{raw}
			stop()
			stop = context.AfterFunc(ctx, func() { raw.Close() })
		}
		if err := fetchFile(s.fs, c, man.ExportId, f, obj); err != nil {
			return fmt.Errorf("node: fetch snapshot file %s from %s: %w", f.Path, man.SourceAddr, err)
		}
	}
	return s.layOut(man)
}

// fetchFile continues obj.part, verifies the whole and names it obj.
func fetchFile(fsys storage.FS, c net.Conn, exportID string, f *nodev1.File, obj string) error {
	part, err := fsys.OpenReadWrite(obj+".part", "snapshot")
	if err != nil {
		return err
	}
	defer func() { part.Close() }()
	h := xxh3.New128()
	offset, err := io.Copy(h, part)
	if err != nil {
		return err
	}
	if offset > f.Size {
		h.Reset()
		offset = 0
		next, err := fsys.Create(obj+".part", "snapshot")
		if err != nil {
			return err
		}
		part.Close()
		part = next
	}
	b, err := proto.Marshal(&nodev1.FetchRequest{ExportId: exportID, Path: f.Path, Offset: offset})
	if err != nil {
		return err
	}
	if _, err := c.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(b))), b...)); err != nil {
		return err
	}
	var ok [1]byte
	if _, err := io.ReadFull(c, ok[:]); err != nil {
		return err
	}
	if ok[0] != 1 {
		return fmt.Errorf("%w: the source no longer has it", errInvalid)
	}
	if _, err := io.CopyN(io.MultiWriter(part, h), c, f.Size-offset); err != nil {
		return err
	}
	sum := h.Sum128().Bytes()
	if !bytes.Equal(sum[:], f.Checksum) {
		_ = fsys.Remove(obj + ".part")
		return fmt.Errorf("checksum does not match: fetching it anew")
	}
	if err := part.Sync(); err != nil {
		return err
	}
	return fsys.Rename(obj+".part", obj)
}

// layOut links the fetched objects under their names.
func (s *snapshotStore) layOut(man *nodev1.Manifest) error {
	dir := s.stagedDir(stagedName(man))
	if err := s.fs.RemoveAll(dir); err != nil {
		return err
	}
	dirs := map[string]bool{dir: true}
	for _, f := range man.Files {
		path := filepath.Join(dir, filepath.FromSlash(f.Path))
		if err := s.fs.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			return err
		}
		dirs[filepath.Dir(path)] = true
		obj := filepath.Join(s.objects(), hex.EncodeToString(f.Checksum))
		if err := s.fs.Link(obj, path); err != nil {
			return err
		}
	}
	b, err := proto.Marshal(man)
	if err != nil {
		return err
	}
	if err := s.fs.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	if err := storage.WriteFile(s.fs, dir+manifestSuffix, b); err != nil {
		return err
	}
	for d := range dirs {
		if err := storage.SyncDir(s.fs, d); err != nil {
			return err
		}
	}
	return storage.SyncDir(s.fs, s.incoming())
}
