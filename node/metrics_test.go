// SPDX-License-Identifier: Apache-2.0

package node

import (
	"fmt"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
)

// Alarms are metrics by kind and node, and not without bound.
func TestAlarmsAreMetrics(t *testing.T) {
	reg := prometheus.NewRegistry()
	c := startCluster(t, 1, func(cfg *Config) { cfg.Registerer = reg })
	for i := range maxAlarmSeries + 6 {
		cmd := alarm(alarmKey{"TEST", fmt.Sprintf("x%03d", i)}, "made up", false)
		cmd.RequestId = fmt.Sprint("alarm ", i)
		if _, err := c.leader().Propose(c.ctx(), cmd); err != nil {
			t.Fatal(err)
		}
	}
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	series, more := 0, 0.0
	for _, f := range families {
		if f.GetName() != "akidb_node_alarms" {
			continue
		}
		for _, m := range f.Metric {
			labels := map[string]string{}
			for _, l := range m.Label {
				labels[l.GetName()] = l.GetValue()
			}
			switch {
			case labels["kind"] == "TEST" && strings.HasPrefix(labels["node"], "x"):
				series++
			case labels["kind"] == "more":
				more = m.Gauge.GetValue()
			default:
				t.Errorf("labels %v", labels)
			}
		}
	}
	if series != maxAlarmSeries || more != 6 {
		t.Errorf("%d series and %v more, want %d and 6", series, more, maxAlarmSeries)
	}
}
