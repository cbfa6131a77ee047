// SPDX-License-Identifier: Apache-2.0

package raftfsm

import (
	"github.com/prometheus/client_golang/prometheus"

	fsmv1 "github.com/akidb/akidb/raftfsm/fsmpb/akidb/fsm/v1"
)

// metrics are written by Apply without waiting and never read by it.
type metrics struct {
	registerer prometheus.Registerer
	entries    prometheus.Counter
	batches    prometheus.Counter
	replays    prometheus.Counter
	results    *prometheus.CounterVec
	all        []prometheus.Collector
}

func newMetrics(f *FSM) *metrics {
	m := &metrics{
		entries: prometheus.NewCounter(prometheus.CounterOpts{Name: "akidb_fsm_entries_total", Help: "Log entries handed to the state machine."}),
		batches: prometheus.NewCounter(prometheus.CounterOpts{Name: "akidb_fsm_batches_total", Help: "Runs of entries applied in one storage batch."}),
		replays: prometheus.NewCounter(prometheus.CounterOpts{Name: "akidb_fsm_replayed_requests_total", Help: "Commands answered with the remembered outcome of their request id."}),
		results: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "akidb_fsm_results_total", Help: "Outcomes of commands by status."}, []string{"status"}),
	}
	gauge := func(name, help string, fn func() float64) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, fn)
	}
	m.all = []prometheus.Collector{
		m.entries, m.batches, m.replays, m.results,
		gauge("akidb_fsm_applied_index", "Log index up to which entries are applied and visible.", func() float64 { return float64(f.Applied()) }),
		gauge("akidb_fsm_diverged", "1 once a state check disagreed with this replica.", func() float64 {
			if f.diverged.Load() != nil {
				return 1
			}
			return 0
		}),
		gauge("akidb_fsm_documents", "Documents in all collections.", func() float64 {
			st := f.acquire()
			defer f.release(st)
			n := 0
			for i := range st.colls {
				n += st.colls[i].live
			}
			return float64(n)
		}),
		gauge("akidb_fsm_collections", "Collections.", func() float64 {
			st := f.acquire()
			defer f.release(st)
			return float64(len(st.colls))
		}),
		gauge("akidb_storage_disk_bytes", "Bytes the store takes on disk.", func() float64 { return float64(f.StorageStats().DiskBytes) }),
		gauge("akidb_storage_memtable_bytes", "Bytes of writes that are not flushed yet.", func() float64 { return float64(f.StorageStats().MemTableBytes) }),
		gauge("akidb_storage_compaction_debt_bytes", "Estimate of bytes that compactions still have to rewrite.", func() float64 { return float64(f.StorageStats().CompactionDebt) }),
		gauge("akidb_storage_read_amplification", "Files a point read may have to look into.", func() float64 { return float64(f.StorageStats().ReadAmp) }),
	}
	return m
}

func (m *metrics) register(r prometheus.Registerer) error {
	if r == nil {
		return nil
	}
	for i, c := range m.all {
		if err := r.Register(c); err != nil {
			for _, done := range m.all[:i] {
				r.Unregister(done)
			}
			return err
		}
	}
	m.registerer = r
	return nil
}

func (m *metrics) unregister() {
	if m.registerer == nil {
		return
	}
	for _, c := range m.all {
		m.registerer.Unregister(c)
	}
}

func (m *metrics) applied(entries int) {
	m.entries.Add(float64(entries))
	m.batches.Inc()
}

func (m *metrics) replayed() { m.replays.Inc() }

func (m *metrics) result(s fsmv1.Status) { m.results.WithLabelValues(s.String()).Inc() }
