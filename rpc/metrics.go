// SPDX-License-Identifier: Apache-2.0

package rpc

import (
	"context"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc/codes"

	"github.com/akidb/akidb/node"
)

// metrics are the API's metrics; names and labels are those of the single-node
// AkiDB where it had them, so that its dashboards keep working.
type metrics struct {
	httpRequests *prometheus.CounterVec
	httpSeconds  *prometheus.HistogramVec
	grpcRequests *prometheus.CounterVec
	grpcSeconds  *prometheus.HistogramVec
	search       prometheus.Observer
	insert       prometheus.Observer
	inFlight     prometheus.Gauge
	panics       prometheus.Counter
}

func newMetrics(reg prometheus.Registerer, version string, n *node.Node) (*metrics, error) {
	seconds := []float64{.0001, .00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10}
	m := &metrics{
		httpRequests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "akidb_http_requests_total", Help: "REST requests by method, route and status.",
		}, []string{"method", "path", "status_code"}),
		httpSeconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "akidb_http_request_duration_seconds", Help: "Time to answer a REST request.", Buckets: seconds,
		}, []string{"method", "path"}),
		grpcRequests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "akidb_grpc_requests_total", Help: "gRPC calls by service, method and status.",
		}, []string{"service", "method", "status"}),
		grpcSeconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "akidb_grpc_request_duration_seconds", Help: "Time to answer a gRPC call.", Buckets: seconds,
		}, []string{"service", "method"}),
		inFlight: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "akidb_requests_in_flight", Help: "Requests being answered, REST and gRPC.",
		}),
		panics: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "akidb_request_panics_total", Help: "Requests that ended in a panic.",
		}),
	}
	search := prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: "akidb_vector_search_duration_seconds", Help: "Time to answer a search, read barrier included.", Buckets: seconds,
	}, []string{"tier"})
	insert := prometheus.NewHistogram(prometheus.HistogramOpts{
		Name: "akidb_vector_insert_duration_seconds", Help: "Time to commit and apply one insert or upsert.", Buckets: seconds,
	})
	build := prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "akidb_build_info", Help: "Always 1; the label says the version.",
	}, []string{"version"})
	build.WithLabelValues(version).Set(1)
	m.search, m.insert = search.WithLabelValues("hot"), insert
	for _, c := range []prometheus.Collector{m.httpRequests, m.httpSeconds, m.grpcRequests, m.grpcSeconds,
		m.inFlight, m.panics, search, insert, build, newSizes(n)} {
		if err := reg.Register(c); err != nil {
			return nil, err
		}
	}
	return m, nil
}

func (m *metrics) searched(w stopwatch) { m.search.Observe(time.Since(w.start).Seconds()) }
func (m *metrics) inserted(w stopwatch) { m.insert.Observe(time.Since(w.start).Seconds()) }

func (m *metrics) answeredHTTP(method, path string, code int, took time.Duration) {
	m.httpRequests.WithLabelValues(method, path, strconv.Itoa(code)).Inc()
	m.httpSeconds.WithLabelValues(method, path).Observe(took.Seconds())
}

func (m *metrics) answeredGRPC(fullMethod string, code codes.Code, took time.Duration) {
	service, method := splitMethod(fullMethod)
	m.grpcRequests.WithLabelValues(service, method, code.String()).Inc()
	m.grpcSeconds.WithLabelValues(service, method).Observe(took.Seconds())
}

// sizes reads the sizes of collections when it is scraped.
type sizes struct {
	node                                     *node.Node
	size, total, collections, uptime, memory *prometheus.Desc
}

func newSizes(n *node.Node) *sizes {
	return &sizes{
		node:        n,
		size:        prometheus.NewDesc("akidb_collection_size_vectors", "Documents of a collection, as applied here.", []string{"collection_id"}, nil),
		total:       prometheus.NewDesc("akidb_total_vectors", "Documents of all collections, as applied here.", nil, nil),
		collections: prometheus.NewDesc("akidb_total_collections", "Collections, as applied here.", nil, nil),
		uptime:      prometheus.NewDesc("akidb_uptime_seconds", "Seconds since the node was opened.", nil, nil),
		memory:      prometheus.NewDesc("akidb_memory_usage_bytes", "Bytes the indexes hold in RAM, by part.", []string{"component"}, nil),
	}
}

// Describe implements prometheus.Collector.
func (s *sizes) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{s.size, s.total, s.collections, s.uptime, s.memory} {
		ch <- d
	}
}

// Collect implements prometheus.Collector. A fenced replica reports no sizes.
func (s *sizes) Collect(ch chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	gauge(s.uptime, s.node.Status().Uptime.Seconds())
	ctx, cancel := context.WithTimeout(context.Background(), scrapeDeadline)
	defer cancel()
	v, err := s.node.Read(ctx, node.ReadOptions{Consistency: node.Eventual})
	if err != nil {
		return
	}
	defer v.Close()
	total := 0
	var vectors, codes, graph, payload, slots int64
	collections := v.Collections()
	for _, c := range collections {
		n, m := c.Len(), c.IndexStatus().Memory
		total += n
		gauge(s.size, float64(n), c.Record().GetCollectionId())
		vectors, codes, graph = vectors+m.Vectors, codes+m.Codes, graph+m.Graph
		payload, slots = payload+m.Payload, slots+m.Slots
	}
	gauge(s.total, float64(total))
	gauge(s.collections, float64(len(collections)))
	gauge(s.memory, float64(vectors), "vectors")
	gauge(s.memory, float64(codes), "codes")
	gauge(s.memory, float64(graph), "graph")
	gauge(s.memory, float64(payload), "payload")
	gauge(s.memory, float64(slots), "slots")
}
