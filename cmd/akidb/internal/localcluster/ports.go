// SPDX-License-Identifier: Apache-2.0

package localcluster

import (
	"errors"
	"math/rand/v2"
	"net"
)

// Ports are taken below the range from which systems give ports to outgoing
// connections: a node that is down for a while must find its port free again.
const firstPort, lastPort = 10240, 32767

// freePorts finds n ports that are free for TCP and UDP on the loopback interface.
func freePorts(n int) ([]int, error) {
	var out []int
	taken := map[int]bool{}
	for range 50 * n {
		port := firstPort + rand.IntN(lastPort-firstPort+1)
		if taken[port] || !free(port) {
			continue
		}
		taken[port] = true
		if out = append(out, port); len(out) == n {
			return out, nil
		}
	}
	return nil, errors.New("no free ports on 127.0.0.1")
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
