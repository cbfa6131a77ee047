// SPDX-License-Identifier: Apache-2.0

package storage

import (
	"errors"
	"fmt"
	"io"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
)

// FS is a file system. Tests put in one that fails or forgets what was not
// synced; that is why everything the state machine writes goes through it.
type FS = vfs.FS

// File is an open file of an FS.
type File = vfs.File

// OpenOption changes how FS.OpenReadWrite opens.
type OpenOption = vfs.OpenOption

// WriteCategory tells what a file is written for; see FS.Create.
type WriteCategory = vfs.DiskWriteCategory

// MemFS is a file system in RAM.
type MemFS = vfs.MemFS

// CrashConfig says what survives MemFS.CrashClone.
type CrashConfig = vfs.CrashCloneCfg

// Disk is the file system of the machine.
func Disk() FS { return vfs.Default }

// NewMemFS returns an empty file system in RAM.
func NewMemFS() *MemFS { return vfs.NewMem() }

// NewCrashFS returns an empty file system in RAM that knows what was synced.
func NewCrashFS() *MemFS { return vfs.NewCrashableMem() }

// ErrInjected is the failure that FailingFS injects.
func ErrInjected() error { return errorfs.ErrInjected }

// FailingFS asks fail before each operation of inner whether it is to fail.
// write is false for operations that only read; op is a word like create or sync.
func FailingFS(inner FS, fail func(write bool, op, path string) bool) FS {
	return errorfs.Wrap(inner, errorfs.InjectorFunc(func(op errorfs.Op) error {
		write := op.Kind.ReadOrWrite() == errorfs.OpIsWrite
		if fail(write, opName(op.Kind), op.Path) {
			return errorfs.ErrInjected
		}
		return nil
	}))
}

func opName(k errorfs.OpKind) string {
	switch k {
	case errorfs.OpCreate:
		return "create"
	case errorfs.OpLink:
		return "link"
	case errorfs.OpRemove, errorfs.OpRemoveAll:
		return "remove"
	case errorfs.OpRename:
		return "rename"
	case errorfs.OpMkdirAll:
		return "mkdir"
	case errorfs.OpFileWrite, errorfs.OpFileWriteAt:
		return "write"
	case errorfs.OpFileSync, errorfs.OpFileSyncData, errorfs.OpFileSyncTo:
		return "sync"
	}
	return fmt.Sprintf("operation %d", k)
}

// WriteFile replaces the file name by data so that a crash leaves the old or the
// new contents: temporary file, sync, rename, sync of the directory.
func WriteFile(fs FS, name string, data []byte) error {
	tmp := name + ".tmp"
	f, err := fs.Create(tmp, vfs.WriteCategoryUnspecified)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := fs.Rename(tmp, name); err != nil {
		return err
	}
	return SyncDir(fs, fs.PathDir(name))
}

// ReadFile reads a file of at most limit bytes.
func ReadFile(fs FS, name string, limit int64) (data []byte, err error) {
	f, err := fs.Open(name)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	data, err = io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(data)) > limit {
		err = fmt.Errorf("storage: %s is larger than %d bytes", name, limit)
	}
	return data, err
}

// CopyFile links or copies a file and makes the contents durable; the name needs
// SyncDir.
func CopyFile(fs FS, from, to string) error {
	if err := vfs.LinkOrCopy(fs, from, to); err != nil {
		return err
	}
	f, err := fs.Open(to)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// SyncDir makes the names in a directory durable.
func SyncDir(fs FS, dir string) error {
	d, err := fs.OpenDir(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// ForgetSync is inner with every sync left out, as on a disk that lies. It shows
// that a test notices.
func ForgetSync(inner FS) FS { return forgetful{inner} }

type forgetful struct{ FS }

func (f forgetful) Create(name string, c vfs.DiskWriteCategory) (File, error) {
	return forget(f.FS.Create(name, c))
}

func (f forgetful) OpenReadWrite(name string, c vfs.DiskWriteCategory, o ...vfs.OpenOption) (File, error) {
	return forget(f.FS.OpenReadWrite(name, c, o...))
}

func (f forgetful) ReuseForWrite(from, to string, c vfs.DiskWriteCategory) (File, error) {
	return forget(f.FS.ReuseForWrite(from, to, c))
}

func (f forgetful) OpenDir(name string) (File, error) { return forget(f.FS.OpenDir(name)) }

func forget(f File, err error) (File, error) {
	if err != nil {
		return nil, err
	}
	return forgetfulFile{f}, nil
}

type forgetfulFile struct{ File }

func (forgetfulFile) Sync() error                { return nil }
func (forgetfulFile) SyncData() error            { return nil }
func (forgetfulFile) SyncTo(int64) (bool, error) { return true, nil }
