// SPDX-License-Identifier: Apache-2.0

package client

import (
	"context"
	"net"
	"slices"
	"strings"
	"time"
)

// dnsScheme marks an endpoint that stands for all addresses of a name.
const dnsScheme = "dns:///"

// target is one address to dial and the name its certificate must carry.
type target struct{ addr, serverName string }

// start makes the endpoints. Only DNS names need a goroutine, which looks them
// up now and again.
func (k *core) start() {
	if slices.ContainsFunc(k.cfg.Endpoints, func(e string) bool { return strings.HasPrefix(e, dnsScheme) }) {
		k.wg.Add(1)
		go k.resolve()
		return
	}
	k.publish(k.targets())
	close(k.resolved)
}

// resolve turns Config.Endpoints into endpoints, again and again until the
// client is closed.
func (k *core) resolve() {
	defer k.wg.Done()
	wait := minBackoff
	for first := true; ; {
		targets := k.targets()
		if len(targets) > 0 {
			k.publish(targets)
			wait = resolveInterval
			if first {
				close(k.resolved)
				first = false
			}
		} else {
			wait = min(2*wait, time.Second)
		}
		if sleepFor(k.ctx, wait) != nil {
			return
		}
	}
}

// targets lists the addresses; a name that does not resolve gives none, so that
// the endpoints known of it stay until it does.
func (k *core) targets() []target {
	var out []target
	for _, e := range k.cfg.Endpoints {
		name, ok := strings.CutPrefix(e, dnsScheme)
		if !ok {
			out = append(out, target{addr: e})
			continue
		}
		host, port, _ := net.SplitHostPort(name) // withDefaults checked it
		ctx, cancel := context.WithTimeout(k.ctx, resolveTimeout)
		ips, err := k.lookup(ctx, host)
		cancel()
		if err != nil || len(ips) == 0 {
			out = append(out, k.known(host)...)
			continue
		}
		slices.Sort(ips)
		for _, ip := range ips {
			out = append(out, target{addr: net.JoinHostPort(ip, port), serverName: host})
		}
	}
	if len(out) > maxEndpoints {
		out = out[:maxEndpoints]
	}
	return out
}

// known lists the endpoints that an earlier look-up of host gave.
func (k *core) known(host string) []target {
	var out []target
	for _, e := range k.set.Load().list {
		if e.serverName == host {
			out = append(out, target{addr: e.addr, serverName: host})
		}
	}
	return out
}

// publish keeps the endpoints that are still wanted, opens new ones and closes
// the others.
func (k *core) publish(targets []target) {
	old := k.set.Load().list
	next := &endpointSet{}
	for _, t := range targets {
		if slices.ContainsFunc(next.list, func(e *endpoint) bool { return e.addr == t.addr }) {
			continue
		}
		if i := slices.IndexFunc(old, func(e *endpoint) bool { return e.addr == t.addr }); i >= 0 {
			next.list = append(next.list, old[i])
			continue
		}
		e, err := k.newEndpoint(t)
		if err != nil { // only an address that gRPC cannot parse
			continue
		}
		next.list = append(next.list, e)
	}
	k.set.Store(next)
	for _, e := range old {
		if !slices.Contains(next.list, e) {
			k.leader.CompareAndSwap(e, nil)
			_ = e.close() // calls under way fail and are tried elsewhere
		}
	}
}
