// SPDX-License-Identifier: Apache-2.0

package node

import (
	"errors"
	"fmt"
	"time"

	"github.com/hashicorp/raft"
	"github.com/prometheus/client_golang/prometheus"
)

// metrics are all metrics of this package.
type metrics struct {
	reg                                   prometheus.Registerer
	all                                   []prometheus.Collector
	refused, proposed                     *prometheus.CounterVec
	proposeSeconds, entryCommands         prometheus.Histogram
	appendSeconds                         prometheus.Histogram
	appendBytes, logFailures, leaderships prometheus.Counter
	hastened                              prometheus.Counter
	readWait                              *prometheus.HistogramVec
}

func newMetrics(reg prometheus.Registerer, n *Node) (*metrics, error) {
	m := &metrics{reg: reg}
	seconds := prometheus.ExponentialBuckets(0.0001, 2, 17)
	counterVec := func(name, help, label string) *prometheus.CounterVec {
		return add(m, prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: "akidb", Subsystem: "node", Name: name, Help: help}, []string{label}))
	}
	counter := func(name, help string) prometheus.Counter {
		return add(m, prometheus.NewCounter(prometheus.CounterOpts{Namespace: "akidb", Subsystem: "node", Name: name, Help: help}))
	}
	histogram := func(name, help string, buckets []float64) prometheus.Histogram {
		return add(m, prometheus.NewHistogram(prometheus.HistogramOpts{Namespace: "akidb", Subsystem: "node", Name: name, Help: help, Buckets: buckets}))
	}
	gauge := func(name, help string, f func() float64) {
		add(m, prometheus.NewGaugeFunc(prometheus.GaugeOpts{Namespace: "akidb", Subsystem: "node", Name: name, Help: help}, f))
	}
	m.refused = counterVec("writes_refused_total", "Writes refused because a budget was used up.", "budget")
	m.proposed = counterVec("proposals_total", "Commands proposed on this node as leader, by outcome.", "outcome")
	m.proposeSeconds = histogram("propose_seconds", "Time from handing an entry to Raft to its application.", seconds)
	m.entryCommands = histogram("entry_commands", "Commands sharing one log entry.", prometheus.ExponentialBuckets(1, 2, 9))
	m.appendSeconds = histogram("log_append_seconds", "Time of an append to the log, with its fsync.", seconds)
	m.appendBytes = counter("log_append_bytes_total", "Bytes of entries appended to the log.")
	m.logFailures = counter("log_failures_total", "Times the log could not be written and was closed.")
	m.leaderships = counter("leaderships_total", "Times this node became leader.")
	m.hastened = counter("elections_hastened_total", "Times another node's question for its vote made this one look for its leader.")
	m.readWait = add(m, prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Namespace: "akidb", Subsystem: "node", Name: "read_barrier_seconds", Help: "Time a read waited for its consistency.", Buckets: seconds,
	}, []string{"consistency"}))
	raftValue := func(f func(*raftCore) uint64) func() float64 {
		return func() float64 {
			if n.g == nil {
				return 0
			}
			if c := n.g.core.Load(); c != nil {
				return float64(f(c))
			}
			return 0
		}
	}
	gauge("raft_term", "Current Raft term.", raftValue(func(c *raftCore) uint64 { return c.r.CurrentTerm() }))
	gauge("raft_commit_index", "Committed log index known here.", raftValue(func(c *raftCore) uint64 { return c.r.CommitIndex() }))
	gauge("raft_last_index", "Last log index.", raftValue(func(c *raftCore) uint64 { return c.r.LastIndex() }))
	gauge("raft_leader", "1 on the leader.", raftValue(func(c *raftCore) uint64 {
		if c.r.State() == raft.Leader {
			return 1
		}
		return 0
	}))
	gauge("applied_index", "Log index applied to the state.", func() float64 {
		if n.g == nil || n.g.ad == nil {
			return 0
		}
		return float64(n.g.ad.applied())
	})
	gauge("ready", "1 if this replica can serve.", func() float64 {
		if n.g == nil || n.g.ad == nil || n.Ready() != nil {
			return 0
		}
		return 1
	})
	gauge("disk_free_bytes", "Bytes free on the data disk.", func() float64 {
		if n.budgets == nil {
			return 0
		}
		return float64(n.budgets.freeDisk())
	})
	gauge("gossip_members", "Nodes that gossip reaches, this one included; 0 without gossip.", func() float64 {
		if n.gossip == nil {
			return 0
		}
		return float64(n.gossip.ml.NumMembers())
	})
	add(m, prometheus.Collector(&alarmCollector{n: n, desc: prometheus.NewDesc("akidb_node_alarms",
		"1 for each alarm raised in the cluster, by kind and the node it is about.", []string{"kind", "node"}, nil)}))
	for i, c := range m.all {
		if err := reg.Register(c); err != nil {
			for _, done := range m.all[:i] {
				reg.Unregister(done)
			}
			return nil, fmt.Errorf("node: register metrics: %w", err)
		}
	}
	return m, nil
}

// maxAlarmSeries bounds the alarms that are named one by one; those beyond are
// counted together, under no node.
const maxAlarmSeries = 64

// alarmCollector shows the alarms as this replica knows them.
type alarmCollector struct {
	n    *Node
	desc *prometheus.Desc
}

// Describe implements prometheus.Collector.
func (c *alarmCollector) Describe(ch chan<- *prometheus.Desc) { ch <- c.desc }

// Collect implements prometheus.Collector.
func (c *alarmCollector) Collect(ch chan<- prometheus.Metric) {
	if c.n.g == nil || c.n.g.m == nil {
		return
	}
	alarms := c.n.g.m.Facts().alarms
	for _, a := range alarms[:min(len(alarms), maxAlarmSeries)] {
		ch <- prometheus.MustNewConstMetric(c.desc, prometheus.GaugeValue, 1, a.Kind, a.NodeID)
	}
	if more := len(alarms) - maxAlarmSeries; more > 0 {
		ch <- prometheus.MustNewConstMetric(c.desc, prometheus.GaugeValue, float64(more), "more", "")
	}
}

func add[C prometheus.Collector](m *metrics, c C) C {
	m.all = append(m.all, c)
	return c
}

func (m *metrics) unregister() {
	for _, c := range m.all {
		m.reg.Unregister(c)
	}
}

func (m *metrics) observeAppend(_, bytes int, d time.Duration) {
	m.appendSeconds.Observe(d.Seconds())
	m.appendBytes.Add(float64(bytes))
}

func (m *metrics) proposals(start time.Time, n int, err error) {
	outcome := "applied"
	switch {
	case errors.Is(err, ErrUnknownOutcome):
		outcome = "unknown"
	case err != nil:
		outcome = "not_applied"
	default:
		m.proposeSeconds.Observe(time.Since(start).Seconds())
	}
	m.proposed.WithLabelValues(outcome).Add(float64(n))
}
