// SPDX-License-Identifier: Apache-2.0

// Package localport finds loopback ports for whole clusters on one machine: the
// demo's, the tests' and the fault harness's. It never opens a port for anybody.
package localport

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
)

// Ports are taken below the range from which systems give ports to outgoing
// connections: a node that is down for a while must find its port free again.
const firstPort, lastPort = 10240, 32767

// A Reservation keeps ports from every other Reservation on the machine, in this
// process and in others, until it is closed. The ports themselves stay unbound on
// 127.0.0.1: they are for the servers they were reserved for, who may close them
// and open them again.
type Reservation struct {
	Ports []int
	marks []net.Listener // on markHost, one per port; none where the system has no such address
}

// markHost is where a port's owner shows that it is taken. Linux gives all of
// 127.0.0.0/8 to the loopback interface. Where a system does not, ports are only
// probed, and two programs that look at the same moment may draw the same one.
const markHost = "127.77.0.1"

// Reserve finds n ports that are free for TCP and UDP on 127.0.0.1.
func Reserve(n int) (*Reservation, error) {
	r := &Reservation{}
	marking := canMark()
	for range 50 * (n + 1) {
		if len(r.Ports) == n {
			return r, nil
		}
		port := firstPort + rand.IntN(lastPort-firstPort+1)
		if marking {
			mark, err := net.Listen("tcp", fmt.Sprintf("%s:%d", markHost, port))
			if err != nil {
				continue // somebody else's
			}
			if !free(port) {
				mark.Close()
				continue
			}
			r.marks = append(r.marks, mark)
		} else if !free(port) || r.has(port) {
			continue
		}
		r.Ports = append(r.Ports, port)
	}
	r.Close()
	return nil, errors.New("no free ports on 127.0.0.1")
}

// Addr is the i-th port's address, "127.0.0.1:port".
func (r *Reservation) Addr(i int) string { return fmt.Sprintf("127.0.0.1:%d", r.Ports[i]) }

// Close gives the ports back. Who still listens on them is not disturbed.
func (r *Reservation) Close() {
	for _, m := range r.marks {
		m.Close()
	}
	r.marks = nil
}

func (r *Reservation) has(port int) bool {
	for _, p := range r.Ports {
		if p == port {
			return true
		}
	}
	return false
}

func canMark() bool {
	ln, err := net.Listen("tcp", markHost+":0")
	if err != nil {
		return false
	}
	return ln.Close() == nil
}

func free(port int) bool {
	tcp, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: port})
	if err != nil {
		return false
	}
	defer tcp.Close()
	udp, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: port})
	if err != nil {
		return false
	}
	return udp.Close() == nil
}
