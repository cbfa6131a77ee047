// SPDX-License-Identifier: Apache-2.0

package rpc

import (
	"context"
	"encoding/json"
	"net/http"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/akidb/akidb/node"
	"github.com/akidb/akidb/rpc/akidbpb"
)

// fixedEndpoints are the endpoints that are no gRPC methods. None of them needs
// a credential or a leader.
func fixedEndpoints(cfg Config, ops *cluster) map[string]http.HandlerFunc {
	h := &probes{node: cfg.Node, version: cfg.Version, budget: cfg.MemoryBudget}
	openAPI := sync.OnceValues(func() ([]byte, error) { return openAPIDocument(akidbpb.OpenAPI()) })
	return map[string]http.HandlerFunc{
		"/livez": func(w http.ResponseWriter, _ *http.Request) {
			writeJSON(w, http.StatusOK, map[string]string{"status": "ok"})
		},
		"/health": func(w http.ResponseWriter, _ *http.Request) {
			writeJSON(w, http.StatusOK, map[string]string{"status": "healthy", "message": "Service is alive and operational"})
		},
		"/readyz":       h.ready,
		"/ready":        h.ready,
		"/admin/health": h.adminHealth,
		"/metrics":      MetricsHandler(cfg.Gatherer).ServeHTTP,
		"/openapi.json": func(w http.ResponseWriter, _ *http.Request) {
			doc, err := openAPI()
			if err != nil {
				writeError(w, err, 0)
				return
			}
			w.Header().Set("Content-Type", "application/json")
			_, _ = w.Write(doc)
		},
	}
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	b, err := json.Marshal(v)
	if err != nil {
		writeError(w, err, 0)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(append(b, '\n')) // the caller may be gone
}

// probes answer what orchestrators and operators ask.
type probes struct {
	node    *node.Node
	version string
	budget  int64
}

// ready is about this replica: whether it can serve, and why not.
func (p *probes) ready(w http.ResponseWriter, _ *http.Request) {
	if err := p.node.Ready(); err != nil {
		writeJSON(w, http.StatusServiceUnavailable, map[string]string{"status": "not_ready", "message": err.Error()})
		return
	}
	writeJSON(w, http.StatusOK, map[string]string{"status": "ready", "message": "Service is ready to serve requests"})
}

// The states of a component and of the whole.
const (
	healthy   = "healthy"
	degraded  = "degraded"
	unhealthy = "unhealthy"
)

type component struct {
	Status  string         `json:"status"`
	Message *string        `json:"message"`
	Details map[string]any `json:"details"`
}

func newComponent(status, message string, details map[string]any) component {
	c := component{Status: status, Details: details}
	if message != "" {
		c.Message = &message
	}
	return c
}

// adminHealth has the shape the single-node AkiDB gave it, and a component for
// Raft. 503 only if a component is unhealthy.
func (p *probes) adminHealth(w http.ResponseWriter, r *http.Request) {
	st := p.node.Status()
	components := map[string]component{"raft": raftHealth(st)}
	p.stateHealth(r.Context(), components)
	overall := healthy
	for _, c := range components {
		switch {
		case c.Status == unhealthy:
			overall = unhealthy
		case c.Status == degraded && overall == healthy:
			overall = degraded
		}
	}
	code := http.StatusOK
	if overall == unhealthy {
		code = http.StatusServiceUnavailable
	}
	writeJSON(w, code, map[string]any{
		"status": overall, "version": p.version, "uptime_seconds": int64(st.Uptime / time.Second),
		"components": components,
	})
}

func raftHealth(st node.Status) component {
	details := map[string]any{
		"node_id": st.NodeID, "state": st.State, "leader_id": st.LeaderID, "term": st.Term, "voter": st.Voter,
		"commit_index": st.CommitIndex, "applied_index": st.AppliedIndex, "ready": st.Ready,
	}
	switch {
	case st.Ready:
		return newComponent(healthy, "", details)
	case st.LeaderID == "":
		return newComponent(unhealthy, "no leader is known: "+st.NotReadyReason, details)
	}
	return newComponent(degraded, st.NotReadyReason, details)
}

// stateHealth looks at what this replica holds: the catalog as "database", the
// store as "storage", the indexes as "memory"; the alarms of all nodes as "cluster".
func (p *probes) stateHealth(ctx context.Context, components map[string]component) {
	v, err := p.node.Read(ctx, node.ReadOptions{Consistency: node.Eventual})
	if err != nil {
		for _, name := range []string{"database", "storage", "memory", "cluster"} {
			components[name] = newComponent(unhealthy, err.Error(), nil)
		}
		return
	}
	defer v.Close()
	var documents, size int64
	collections := v.Collections()
	for _, c := range collections {
		documents += int64(c.Len())
		m := c.IndexStatus().Memory
		size += m.Vectors + m.Codes + m.Graph + m.Payload + m.Slots
	}
	components["database"] = newComponent(healthy, "", map[string]any{"collections": len(collections), "documents": documents})
	storage := newComponent(healthy, "", map[string]any{"applied_index": v.Applied()})
	var all []map[string]any
	var words []string
	ownMemory := ""
	for _, a := range v.Alarms() {
		all = append(all, map[string]any{"kind": a.Kind, "node_id": a.NodeID, "message": a.Message, "raised_at": timeText(a.RaisedAtMs)})
		words = append(words, a.Kind+" on "+a.NodeID+": "+a.Message)
		message := a.Kind + ": " + a.Message
		switch {
		case a.NodeID != p.node.ID():
		case a.Kind == node.AlarmMemory:
			ownMemory = message
		default:
			storage.Status, storage.Message = degraded, &message
		}
	}
	components["storage"] = storage
	components["cluster"] = newComponent(healthy, "", map[string]any{"alarms": []map[string]any{}})
	if len(all) > 0 {
		components["cluster"] = newComponent(degraded, strings.Join(words, "; "), map[string]any{"alarms": all})
	}
	details := map[string]any{"size_bytes": size, "capacity_bytes": nil, "usage_percent": nil}
	memory := healthy
	if p.budget > 0 {
		percent := 100 * float64(size) / float64(p.budget)
		details["capacity_bytes"], details["usage_percent"] = p.budget, percent
		switch { // the thresholds of the single-node AkiDB
		case percent >= 90:
			memory = unhealthy
		case percent >= 75:
			memory = degraded
		}
	}
	if ownMemory != "" && memory == healthy {
		memory = degraded
	}
	components["memory"] = newComponent(memory, ownMemory, details)
}

// retire answers 501 on the routes of the single-node AkiDB whose subject is
// gone, so that its users learn why.
func (r *rest) retire() error {
	const (
		queue   = "there is no dead-letter queue: a write is either committed or refused"
		breaker = "there is no circuit breaker: nothing is uploaded anywhere"
		tiers   = "there are no tiers: every replica holds every collection"
		embed   = "embedding is not part of this server: send vectors"
	)
	for _, gone := range []struct{ method, pattern, why string }{
		{"POST", "/admin/collections/{id}/dlq/retry", queue},
		{"GET", "/admin/collections/{id}/dlq", queue},
		{"DELETE", "/admin/collections/{id}/dlq", queue},
		{"POST", "/admin/circuit-breaker/reset", breaker},
		{"GET", "/api/v1/collections/{id}/tier", tiers},
		{"POST", "/api/v1/collections/{id}/tier", tiers},
		{"GET", "/api/v1/metrics/tiers", tiers},
		{"POST", "/api/v1/embed", embed},
	} {
		err := r.gateway.HandlePath(gone.method, gone.pattern, func(w http.ResponseWriter, req *http.Request, _ map[string]string) {
			if x := exchangeOf(req.Context()); x != nil {
				x.route = gone.pattern
			}
			writeError(w, withReason(codes.Unimplemented, reasonRetired, classPermanent, "%s", gone.why), 0)
		})
		if err != nil {
			return err
		}
	}
	return nil
}
