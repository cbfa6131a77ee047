// SPDX-License-Identifier: Apache-2.0

//go:build linux

package harness

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/akidb/akidb/jepsen/cluster"
)

// build makes the binaries that the options and nemeses ask for. A folder given
// by Options.Bin keeps them for the next run of the same sources.
func (r *runner) build(ctx context.Context) error {
	if r.needs.Clock && (r.o.Binary != "" || r.o.Upgraded != "") {
		return fmt.Errorf("nemesis %s needs a server whose clock can be moved, which is built here: leave -binary and -upgraded out", r.o.Nemesis)
	}
	dir := r.o.Bin
	if dir == "" {
		dir = filepath.Join(r.o.Out, "bin")
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	if r.o.Binary == "" {
		b := cluster.BuildOptions{Tags: r.o.Tags, Clock: r.needs.Clock}
		if r.needs.Upgrade {
			b.Revision = r.o.From
		}
		bin, err := r.buildOnce(ctx, dir, b)
		if err != nil {
			return err
		}
		r.o.Binary = bin
	}
	if r.needs.Upgrade && r.o.Upgraded == "" {
		bin, err := r.buildOnce(ctx, dir, cluster.BuildOptions{Tags: r.o.Tags, Clock: r.needs.Clock})
		if err != nil {
			return err
		}
		r.o.Upgraded = bin
	}
	return nil
}

func (r *runner) buildOnce(ctx context.Context, dir string, b cluster.BuildOptions) (string, error) {
	name := "akidb"
	if b.Tags != "" {
		name += "-" + strings.ReplaceAll(b.Tags, ",", "-")
	}
	if b.Clock {
		name += "-clock"
	}
	if b.Revision != "" {
		name += "-" + b.Revision
	}
	out := filepath.Join(dir, name)
	if abs, err := filepath.Abs(out); err == nil {
		out = abs
	}
	if _, err := os.Stat(out); err == nil && r.o.Bin != "" {
		return out, nil
	}
	r.logf("build %s", name)
	return out, cluster.Build(ctx, out, b)
}

// freeSubnet is a subnet that no other run on this machine uses, as far as can be
// seen: 10.213.N.0/24.
func freeSubnet(pid int) int {
	used := make(map[string]bool)
	addrs, _ := net.InterfaceAddrs() // without them the process id must do
	for _, a := range addrs {
		if n, ok := a.(*net.IPNet); ok {
			used[n.IP.Mask(net.CIDRMask(24, 32)).String()] = true
		}
	}
	for i := range 250 {
		if n := 1 + (pid+i)%250; !used[fmt.Sprintf("10.213.%d.0", n)] {
			return n
		}
	}
	return 1 + pid%250
}

// SweepDead takes away what runs left whose process is gone.
func SweepDead() []string {
	var swept []string
	links, _ := os.ReadDir("/sys/class/net")
	for _, l := range links {
		tag, ok := strings.CutPrefix(l.Name(), "akj")
		if !ok {
			continue
		}
		// A bridge is named by the tag alone; the tag is the process id.
		pid, err := strconv.ParseInt(tag, 36, 32)
		if err != nil {
			continue
		}
		if _, err := os.Stat("/proc/" + strconv.FormatInt(pid, 10)); os.IsNotExist(err) {
			swept = append(swept, cluster.Sweep(tag)...)
		}
	}
	return swept
}
