// SPDX-License-Identifier: Apache-2.0

package rpc

import (
	"context"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
)

// health answers grpc.health.v1 from the readiness of the node at that moment;
// the ready-made server of grpc would only repeat what it was told last.
type health struct {
	healthv1.UnimplementedHealthServer
	ready    func() error
	services map[string]bool // fixed; "" is the whole server
	stopping <-chan struct{}
}

func (h *health) status() healthv1.HealthCheckResponse_ServingStatus {
	select {
	case <-h.stopping:
		return healthv1.HealthCheckResponse_NOT_SERVING
	default:
	}
	if h.ready() != nil {
		return healthv1.HealthCheckResponse_NOT_SERVING
	}
	return healthv1.HealthCheckResponse_SERVING
}

// Check implements healthv1.HealthServer.
func (h *health) Check(_ context.Context, r *healthv1.HealthCheckRequest) (*healthv1.HealthCheckResponse, error) {
	if !h.services[r.GetService()] {
		return nil, status.Errorf(codes.NotFound, "unknown service %q", r.GetService())
	}
	return &healthv1.HealthCheckResponse{Status: h.status()}, nil
}

// List implements healthv1.HealthServer.
func (h *health) List(context.Context, *healthv1.HealthListRequest) (*healthv1.HealthListResponse, error) {
	out := &healthv1.HealthListResponse{Statuses: map[string]*healthv1.HealthCheckResponse{}}
	st := h.status()
	for name := range h.services {
		out.Statuses[name] = &healthv1.HealthCheckResponse{Status: st}
	}
	return out, nil
}

// Watch implements healthv1.HealthServer: the status now and whenever it
// changes, until the caller goes or the server stops.
func (h *health) Watch(r *healthv1.HealthCheckRequest, stream grpc.ServerStreamingServer[healthv1.HealthCheckResponse]) error {
	known := h.services[r.GetService()]
	last := healthv1.HealthCheckResponse_ServingStatus(-1)
	tick := time.NewTicker(healthPoll)
	defer tick.Stop()
	for {
		now := healthv1.HealthCheckResponse_SERVICE_UNKNOWN
		if known {
			now = h.status()
		}
		if now != last {
			if err := stream.Send(&healthv1.HealthCheckResponse{Status: now}); err != nil {
				return err
			}
			last = now
		}
		select {
		case <-tick.C:
		case <-stream.Context().Done():
			return status.FromContextError(stream.Context().Err()).Err()
		case <-h.stopping:
			if known && last != healthv1.HealthCheckResponse_NOT_SERVING {
				return stream.Send(&healthv1.HealthCheckResponse{Status: healthv1.HealthCheckResponse_NOT_SERVING})
			}
			return nil
		}
	}
}
