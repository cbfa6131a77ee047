// SPDX-License-Identifier: Apache-2.0

package localport

import (
	"net"
	"testing"
)

// Tests of many packages run at once and each draws ports: no two may hold the
// same one, though none of them listens yet.
func TestReservationsDoNotOverlap(t *testing.T) {
	seen := map[int]bool{}
	for range 40 {
		r, err := Reserve(25)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		for _, p := range r.Ports {
			if seen[p] {
				t.Fatalf("port %d was given twice", p)
			}
			seen[p] = true
		}
	}
}

func TestReservedPortCanBeOpenedAndReopened(t *testing.T) {
	r, err := Reserve(1)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	for range 3 {
		ln, err := net.Listen("tcp", r.Addr(0))
		if err != nil {
			t.Fatal(err)
		}
		ln.Close()
	}
}

func TestPortInUseIsNotGiven(t *testing.T) {
	r, err := Reserve(1)
	if err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", r.Addr(0))
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	r.Close()
	if free(r.Ports[0]) {
		t.Errorf("port %d has a listener and counts as free", r.Ports[0])
	}
}
