// SPDX-License-Identifier: Apache-2.0

//go:build linux

package cluster

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
)

// forgetfulFS passes a directory through and remembers how to take back every
// write that was not followed by a sync of its file. That is what a power
// failure does to data in the page cache; kill -9 does not, since the kernel
// keeps the pages. What it does not forget: creations, renames and removals of
// files, which are as if the directory were synced at once.
type forgetfulFS struct {
	server       *fuse.Server
	backing, dir string

	mu    sync.Mutex // guards the fields below
	undo  map[uint64]*unsynced
	delay time.Duration
}

// unsynced is what was done to one file since its last sync, oldest first.
type unsynced struct {
	steps []undoStep
}

// undoStep restores a file to what it was before one write: its size, and the
// bytes that were overwritten.
type undoStep struct {
	path string // in the backing directory; files keep their inode when renamed
	size int64
	off  int64
	old  []byte
	n    int
}

// mountForgetful mounts backing at dir. It needs root and /dev/fuse.
func mountForgetful(source, backing, dir string) (*forgetfulFS, error) {
	if err := os.MkdirAll(backing, 0o755); err != nil {
		return nil, err
	}
	var st syscall.Stat_t
	if err := syscall.Stat(backing, &st); err != nil {
		return nil, err
	}
	f := &forgetfulFS{backing: backing, dir: dir, undo: make(map[uint64]*unsynced)}
	root := &fs.LoopbackRoot{Path: backing, Dev: uint64(st.Dev)}
	root.NewNode = func(r *fs.LoopbackRoot, _ *fs.Inode, _ string, _ *syscall.Stat_t) fs.InodeEmbedder {
		return &forgetfulNode{LoopbackNode: fs.LoopbackNode{RootData: r}, fs: f}
	}
	root.RootNode = &forgetfulNode{LoopbackNode: fs.LoopbackNode{RootData: root}, fs: f}
	server, err := fs.Mount(dir, root.RootNode, &fs.Options{MountOptions: fuse.MountOptions{
		DirectMountStrict: true, FsName: source, Name: "forgetful", AllowOther: true, MaxWrite: 1 << 20,
	}})
	if err != nil {
		return nil, err
	}
	f.server = server
	return f, nil
}

// unmountPatience is how long the end of the file system is waited for.
const unmountPatience = 2 * time.Second

// unmount detaches the file system. The kernel ends it when nobody uses it any
// more, also no other mount namespace; that is waited for only so long, since a
// process that nobody here owns must not be able to hold the harness up.
func (f *forgetfulFS) unmount() error {
	if err := syscall.Unmount(f.dir, syscall.MNT_DETACH); err != nil && !errors.Is(err, syscall.EINVAL) {
		return fmt.Errorf("cluster: unmount %s: %w", f.dir, err)
	}
	ended := make(chan struct{})
	go func() { // ends with the file system
		f.server.Wait()
		close(ended)
	}()
	select {
	case <-ended:
	case <-time.After(unmountPatience):
	}
	return nil
}

func (f *forgetfulFS) slow(d time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.delay = d
}

func inodeOf(fd int) (uint64, int64, error) {
	var st syscall.Stat_t
	err := syscall.Fstat(fd, &st)
	return st.Ino, st.Size, err
}

// remember notes how to take back a write of n bytes at off, or a truncation.
// The caller holds mu.
func (f *forgetfulFS) remember(fd int, path string, off int64, n int) error {
	ino, size, err := inodeOf(fd)
	if err != nil {
		return err
	}
	u := f.undo[ino]
	if u == nil {
		u = &unsynced{}
		f.undo[ino] = u
	}
	old := make([]byte, min(int64(n), max(0, size-off)))
	if len(old) > 0 {
		// The file may be open for writing only: read through a descriptor of our own.
		r, err := os.Open(path)
		if err != nil {
			return err
		}
		defer r.Close()
		if _, err := r.ReadAt(old, off); err != nil && !errors.Is(err, io.EOF) {
			return err
		}
	}
	u.steps = append(u.steps, undoStep{path: path, size: size, off: off, old: old, n: n})
	return nil
}

// synced forgets how to take back the writes of a file: they are durable.
func (f *forgetfulFS) synced(fd int) {
	ino, _, err := inodeOf(fd)
	if err != nil {
		return
	}
	f.mu.Lock()
	delay, before := f.delay, 0
	if u := f.undo[ino]; u != nil {
		before = len(u.steps) // what is written while the sync runs is not covered
	}
	f.mu.Unlock()
	if delay > 0 {
		time.Sleep(delay/2 + rand.N(delay/2+1)) // the fault itself: a slow disk
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	u := f.undo[ino]
	if u == nil {
		return
	}
	if u.steps = u.steps[min(before, len(u.steps)):]; len(u.steps) == 0 {
		delete(f.undo, ino)
	}
}

// losePower takes back writes that were not synced: of each file, a random
// number of its newest ones, and perhaps half of one more, as a disk would that
// wrote some pages and not others.
func (f *forgetfulFS) losePower(seed uint64) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	rng := rand.New(rand.NewPCG(seed, 3))
	lost := 0
	var errs []error
	for _, u := range f.undo {
		keep := 0
		if rng.IntN(2) == 0 {
			keep = rng.IntN(len(u.steps) + 1)
		}
		for i := len(u.steps) - 1; i >= keep; i-- {
			lost++
			errs = append(errs, u.steps[i].revert())
		}
	}
	clear(f.undo)
	return lost, errors.Join(errs...)
}

func (s undoStep) revert() error {
	w, err := os.OpenFile(s.path, os.O_WRONLY, 0)
	if errors.Is(err, os.ErrNotExist) {
		return nil // removed since: there is nothing to restore
	}
	if err != nil {
		return err
	}
	defer w.Close()
	if len(s.old) > 0 {
		if _, err := w.WriteAt(s.old, s.off); err != nil {
			return err
		}
	}
	return w.Truncate(s.size)
}

// forgetfulNode is a file or directory.
type forgetfulNode struct {
	fs.LoopbackNode
	fs *forgetfulFS
}

var (
	_ fs.NodeOpener    = (*forgetfulNode)(nil)
	_ fs.NodeCreater   = (*forgetfulNode)(nil)
	_ fs.NodeSetattrer = (*forgetfulNode)(nil)
	_ fs.NodeRenamer   = (*forgetfulNode)(nil)
)

func (n *forgetfulNode) path() string {
	return filepath.Join(n.RootData.Path, n.Path(n.Root()))
}

// Open opens a file; its writes and syncs are watched.
func (n *forgetfulNode) Open(ctx context.Context, flags uint32) (fs.FileHandle, uint32, syscall.Errno) {
	fd, err := syscall.Open(n.path(), int(flags&^(syscall.O_APPEND|0x8000)), 0)
	if err != nil {
		return nil, 0, fs.ToErrno(err)
	}
	return &forgetfulFile{FileHandle: fs.NewLoopbackFile(fd), fd: fd, node: n, fs: n.fs}, 0, 0
}

// Create creates a file.
func (n *forgetfulNode) Create(ctx context.Context, name string, flags, mode uint32, out *fuse.EntryOut) (*fs.Inode, fs.FileHandle, uint32, syscall.Errno) {
	inode, fh, fuseFlags, errno := n.LoopbackNode.Create(ctx, name, flags, mode, out)
	if errno != 0 {
		return nil, nil, 0, errno
	}
	child, ok := inode.Operations().(*forgetfulNode)
	if !ok {
		return inode, fh, fuseFlags, 0
	}
	fd := -1
	if p, ok := fh.(fs.FilePassthroughFder); ok {
		if got, has := p.PassthroughFd(); has {
			fd = got
		}
	}
	return inode, &forgetfulFile{FileHandle: fh, fd: fd, node: child, fs: n.fs}, fuseFlags, 0
}

// Setattr notes truncations.
func (n *forgetfulNode) Setattr(ctx context.Context, fh fs.FileHandle, in *fuse.SetAttrIn, out *fuse.AttrOut) syscall.Errno {
	if size, ok := in.GetSize(); ok {
		if errno := n.rememberTruncate(int64(size)); errno != 0 {
			return errno
		}
	}
	if ff, ok := fh.(*forgetfulFile); ok {
		fh = ff.FileHandle
	}
	return n.LoopbackNode.Setattr(ctx, fh, in, out)
}

func (n *forgetfulNode) rememberTruncate(size int64) syscall.Errno {
	r, err := os.Open(n.path())
	if err != nil {
		return fs.ToErrno(err)
	}
	defer r.Close()
	n.fs.mu.Lock()
	defer n.fs.mu.Unlock()
	st, err := r.Stat()
	if err != nil {
		return fs.ToErrno(err)
	}
	if st.Size() == size {
		return 0
	}
	return fs.ToErrno(n.fs.remember(int(r.Fd()), n.path(), size, int(max(0, st.Size()-size))))
}

// Rename keeps the notes of the renamed file under its new path.
func (n *forgetfulNode) Rename(ctx context.Context, name string, newParent fs.InodeEmbedder, newName string, flags uint32) syscall.Errno {
	from := filepath.Join(n.path(), name)
	errno := n.LoopbackNode.Rename(ctx, name, newParent, newName, flags)
	if errno != 0 {
		return errno
	}
	to := filepath.Join(n.RootData.Path, newParent.EmbeddedInode().Path(n.Root()), newName)
	n.fs.mu.Lock()
	defer n.fs.mu.Unlock()
	for _, u := range n.fs.undo {
		for i := range u.steps {
			if u.steps[i].path == from {
				u.steps[i].path = to
			}
		}
	}
	return 0
}

// forgetfulFile is an open file.
type forgetfulFile struct {
	fs.FileHandle
	fd   int
	node *forgetfulNode
	fs   *forgetfulFS
}

var (
	_ fs.FileWriter    = (*forgetfulFile)(nil)
	_ fs.FileFsyncer   = (*forgetfulFile)(nil)
	_ fs.FileReader    = (*forgetfulFile)(nil)
	_ fs.FileReleaser  = (*forgetfulFile)(nil)
	_ fs.FileFlusher   = (*forgetfulFile)(nil)
	_ fs.FileAllocater = (*forgetfulFile)(nil)
	_ fs.FileLseeker   = (*forgetfulFile)(nil)
)

// Write notes how to take the write back, then does it.
func (f *forgetfulFile) Write(ctx context.Context, data []byte, off int64) (uint32, syscall.Errno) {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	if err := f.fs.remember(f.fd, f.node.path(), off, len(data)); err != nil {
		return 0, fs.ToErrno(err)
	}
	return f.FileHandle.(fs.FileWriter).Write(ctx, data, off)
}

// Fsync makes the file's writes durable. The backing file is not synced: it
// only has to survive the death of a process.
func (f *forgetfulFile) Fsync(context.Context, uint32) syscall.Errno {
	f.fs.synced(f.fd)
	return 0
}

// Allocate grows the file; a growth that is not synced is taken back.
func (f *forgetfulFile) Allocate(ctx context.Context, off, size uint64, mode uint32) syscall.Errno {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	if err := f.fs.remember(f.fd, f.node.path(), int64(off), 0); err != nil {
		return fs.ToErrno(err)
	}
	return f.FileHandle.(fs.FileAllocater).Allocate(ctx, off, size, mode)
}

func (f *forgetfulFile) Read(ctx context.Context, buf []byte, off int64) (fuse.ReadResult, syscall.Errno) {
	return f.FileHandle.(fs.FileReader).Read(ctx, buf, off)
}

func (f *forgetfulFile) Flush(ctx context.Context) syscall.Errno {
	return f.FileHandle.(fs.FileFlusher).Flush(ctx)
}

func (f *forgetfulFile) Release(ctx context.Context) syscall.Errno {
	return f.FileHandle.(fs.FileReleaser).Release(ctx)
}

func (f *forgetfulFile) Lseek(ctx context.Context, off uint64, whence uint32) (uint64, syscall.Errno) {
	return f.FileHandle.(fs.FileLseeker).Lseek(ctx, off, whence)
}
