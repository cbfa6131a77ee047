// SPDX-License-Identifier: Apache-2.0

package localcluster

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// lockName is the file in Dir whose lock a running cluster holds. It stays there
// when the cluster ends; only the lock counts.
const lockName = "cluster.lock"

// lock makes sure that only one process runs the cluster of dir. The nodes do
// not inherit the file, so the lock ends with this process.
func lock(dir string) (*os.File, error) {
	path := filepath.Join(dir, lockName)
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	ok, err := lockFile(f)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("lock %s: %w", path, err), f.Close())
	}
	if !ok {
		holder, _ := os.ReadFile(path) // for the text only
		return nil, errors.Join(fmt.Errorf("%s is in use: process %s runs a cluster from it; stop that one, or take another directory",
			dir, strings.TrimSpace(string(holder))), f.Close())
	}
	if err := f.Truncate(0); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	if _, err := fmt.Fprintln(f, os.Getpid()); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}
