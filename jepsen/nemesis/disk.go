// SPDX-License-Identifier: Apache-2.0

//go:build linux

package nemesis

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/akidb/akidb/jepsen/cluster"
)

func diskNemeses() []*Nemesis {
	return []*Nemesis{
		{
			Name: "disk-full", About: "the disk of a node, of the leader or of all nodes is full to the last byte",
			Needs: Needs{Disk: cluster.DiskSmall, Crashes: true, Args: []string{"--min-free-disk", "16MiB"}},
			Pause: 5 * time.Second, Hold: 8 * time.Second, Inject: fill,
		},
		{
			Name: "slow-disk", About: "every sync of a node, or of all, takes 50 to 300 ms",
			Needs: Needs{Disk: cluster.DiskFuse}, Pause: 4 * time.Second, Hold: 8 * time.Second, Inject: slowDisk,
		},
		{
			Name: "power", About: "power failure of a node: killed, and what it had not synced is lost",
			Needs: Needs{Disk: cluster.DiskFuse}, Pause: 5 * time.Second, Hold: 5 * time.Second, Inject: power(one),
		},
		{
			Name: "power-all", About: "power failure of all nodes at once",
			Needs: Needs{Disk: cluster.DiskFuse}, Pause: 6 * time.Second, Hold: 4 * time.Second, Inject: power(all),
		},
		{
			Name: "bitflip", About: "a bit flips in a file of a stopped node; it repairs the file, or refuses to start and is replaced",
			Needs: Needs{Crashes: true}, Pause: 5 * time.Second, Hold: 6 * time.Second, Inject: damage(flip),
		},
		{
			Name: "truncate", About: "a file of a stopped node loses its end; it repairs the file, or refuses to start and is replaced",
			Needs: Needs{Crashes: true}, Pause: 5 * time.Second, Hold: 6 * time.Second, Inject: damage(cutOff),
		},
	}
}

func fill(ctx context.Context, e *Env, r *rand.Rand) (string, func(context.Context) error, error) {
	victims := [](chooser){one, theLeader, all}[r.IntN(3)](ctx, e, r)
	heal := func(context.Context) error {
		var errs []error
		for _, n := range victims {
			errs = append(errs, n.FreeDisk())
		}
		return errors.Join(append(errs, startAll(victims))...)
	}
	for _, n := range victims {
		if err := n.FillDisk(); err != nil {
			return "", nil, errors.Join(err, heal(ctx))
		}
	}
	return "filled the disk of " + ids(victims), heal, nil
}

func slowDisk(ctx context.Context, e *Env, r *rand.Rand) (string, func(context.Context) error, error) {
	victims := [](chooser){one, theLeader, all}[r.IntN(3)](ctx, e, r)
	d := time.Duration(50+r.IntN(250)) * time.Millisecond
	var errs []error
	for _, n := range victims {
		errs = append(errs, n.SlowDisk(d))
	}
	heal := func(context.Context) error {
		var errs []error
		for _, n := range victims {
			errs = append(errs, n.SlowDisk(0))
		}
		return errors.Join(errs...)
	}
	if err := errors.Join(errs...); err != nil {
		return "", nil, errors.Join(err, heal(ctx))
	}
	return fmt.Sprintf("syncs of %s take %v", ids(victims), d), heal, nil
}

func power(choose chooser) func(context.Context, *Env, *rand.Rand) (string, func(context.Context) error, error) {
	return func(ctx context.Context, e *Env, r *rand.Rand) (string, func(context.Context) error, error) {
		victims := choose(ctx, e, r)
		// Slow for a moment, so that power fails while syncs are under way: else
		// there is hardly ever anything to lose.
		var errs []error
		for _, n := range victims {
			errs = append(errs, n.SlowDisk(time.Duration(50+r.IntN(250))*time.Millisecond))
		}
		wait(ctx, time.Duration(300+r.IntN(1000))*time.Millisecond)
		// All die before anything is taken back: power fails at one moment.
		for _, n := range victims {
			errs = append(errs, n.Kill())
		}
		lost := 0
		for _, n := range victims {
			l, err := n.LosePower(r.Uint64())
			lost += l
			errs = append(errs, err)
		}
		heal := func(context.Context) error { return startAll(victims) }
		if err := errors.Join(errs...); err != nil {
			return "", nil, errors.Join(err, heal(ctx))
		}
		return fmt.Sprintf("power failure of %s, %d writes lost", ids(victims), lost), heal, nil
	}
}

// damage stops a follower, damages one of its files and starts it again. Either
// it mends the file and goes on, or it refuses to start: then it is taken out of
// the configuration, loses its data and joins anew, as docs say.
func damage(how func(string, *rand.Rand) (string, error)) func(context.Context, *Env, *rand.Rand) (string, func(context.Context) error, error) {
	return func(ctx context.Context, e *Env, r *rand.Rand) (string, func(context.Context) error, error) {
		if !e.damage.TryLock() {
			return "", nil, errors.New("another node's data is damaged already")
		}
		did, heal, err := damageOne(ctx, e, r, how)
		if err != nil {
			e.damage.Unlock()
			return "", nil, err
		}
		return did, func(ctx context.Context) error {
			defer e.damage.Unlock()
			return heal(ctx)
		}, nil
	}
}

func damageOne(ctx context.Context, e *Env, r *rand.Rand, how func(string, *rand.Rand) (string, error)) (string, func(context.Context) error, error) {
	n := follower(ctx, e, r)
	if err := n.Kill(); err != nil {
		return "", nil, err
	}
	file, err := pickFile(n, r)
	if err != nil {
		return "", nil, errors.Join(err, n.Start())
	}
	did, err := how(file, r)
	if err != nil {
		return "", nil, errors.Join(err, n.Start())
	}
	short := n.ID + "/" + strings.TrimPrefix(file, n.DataDir+"/")
	before := len(n.Exits())
	if err := n.Start(); err != nil {
		return "", nil, err
	}
	return did + " of " + short, func(ctx context.Context) error { return mend(ctx, e, n, file, before) }, nil
}

// mend waits until the node serves again, or replaces it if it ended.
func mend(ctx context.Context, e *Env, n *cluster.Node, file string, exitsBefore int) error {
	cctx, cancel := context.WithTimeout(ctx, healLimit/3)
	defer cancel()
	err := n.Start() // a supervisor would
	for cctx.Err() == nil && err == nil {
		if len(n.Exits()) > exitsBefore && !n.Running() {
			break
		}
		one, stop := context.WithTimeout(cctx, time.Second)
		caught := e.Admin.CaughtUp(one, n)
		stop()
		if caught == nil {
			e.Note("%s serves again with its damaged file", n.ID)
			return nil
		}
	}
	named := logNames(n, file)
	e.Note("%s refuses to serve (log names the file: %v)", n.ID, named)
	n.ForgetExits()
	return replace(ctx, e, n)
}

// replace takes a node out of the configuration, empties it, lets it join and
// waits until it votes again: before that the others are all there is, and none
// of them may be damaged next. Wiping a voter that still counts would be an amnesia
// Raft cannot stand.
func replace(ctx context.Context, e *Env, n *cluster.Node) error {
	if err := n.Kill(); err != nil {
		return err
	}
	for {
		err := e.Admin.RemoveMember(ctx, n.ID)
		if err == nil {
			break
		}
		if !wait(ctx, time.Second) {
			return fmt.Errorf("remove %s: %w", n.ID, err)
		}
	}
	if err := n.Wipe(); err != nil {
		return err
	}
	if err := n.Start(); err != nil {
		return err
	}
	return errors.Join(e.Admin.CaughtUp(ctx, n), allVote(ctx, e))
}

// logNames says whether the end of the node's log names the damaged file, or the
// part of the data it belongs to.
func logNames(n *cluster.Node, file string) bool {
	b, err := os.ReadFile(n.LogFile())
	if err != nil {
		return false
	}
	tail := string(b[max(0, len(b)-20000):])
	return strings.Contains(tail, filepath.Base(file)) || strings.Contains(tail, filepath.Base(filepath.Dir(file)))
}

// pickFile draws a part of the data first (log, store, checkpoint), then a file.
func pickFile(n *cluster.Node, r *rand.Rand) (string, error) {
	files, err := n.Files()
	if err != nil {
		return "", err
	}
	parts := make(map[string][]string)
	var names []string
	for _, f := range files {
		if filepath.Base(f) == "LOCK" {
			continue
		}
		part := filepath.Dir(f)
		if parts[part] == nil {
			names = append(names, part) // in the order of the walk: by name
		}
		parts[part] = append(parts[part], f)
	}
	if len(names) == 0 {
		return "", fmt.Errorf("%s has no files", n.ID)
	}
	p := parts[names[r.IntN(len(names))]]
	return p[r.IntN(len(p))], nil
}

// flip flips one bit in a part of the file that is not just zeros: space that
// was reserved and never used says nothing.
func flip(file string, r *rand.Rand) (string, error) {
	f, err := os.OpenFile(file, os.O_RDWR, 0)
	if err != nil {
		return "", err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return "", err
	}
	buf := make([]byte, 4096)
	for range 1000 {
		off := r.Int64N(st.Size())
		n, err := f.ReadAt(buf, off)
		if err != nil && err != io.EOF {
			return "", err
		}
		for i, b := range buf[:n] {
			if b != 0 {
				bit := byte(1) << r.IntN(8)
				_, err := f.WriteAt([]byte{b ^ bit}, off+int64(i))
				return fmt.Sprintf("flipped a bit at %d of %d", off+int64(i), st.Size()), err
			}
		}
	}
	return "", fmt.Errorf("%s holds nothing but zeros", file)
}

func cutOff(file string, r *rand.Rand) (string, error) {
	st, err := os.Stat(file)
	if err != nil {
		return "", err
	}
	size := r.Int64N(st.Size())
	return fmt.Sprintf("cut %d of %d bytes off", st.Size()-size, st.Size()), os.Truncate(file, size)
}
