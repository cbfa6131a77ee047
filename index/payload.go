// SPDX-License-Identifier: Apache-2.0

package index

type payload struct{}

func newPayload(fields []Field, src Source) *payload { return &payload{} }
func (p *payload) add(slot Slot, raw []byte)         {}
func (p *payload) bytes() int64                      { return 0 }

func (r *request) evaluate(v View) error { return nil }
