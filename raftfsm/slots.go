// SPDX-License-Identifier: Apache-2.0

package raftfsm

import (
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/akidb/akidb/index"
)

// slotTable keeps in RAM what a search result needs of its slot: document id,
// version and external id, so that a search without a payload reads no storage.
//
// Apply puts slots in increasing order and never changes one; holes are slots
// that were dead when the table was loaded. Readers use a slotView taken after
// the slots it covers were put; later puts write other elements of the same
// arrays, so the two need no lock. Nothing in the arrays is a pointer, so the
// garbage collector does not look into them.
type slotTable struct {
	// refs[s/slotsPerChunk][s%slotsPerChunk] is 0 or 1 + the position of the
	// entry of slot s in data, in units of entryAlign bytes.
	refs [][]uint32
	data [][]byte
	last int // chunk of data that is being filled
	used int // bytes of it
	// Entries in each chunk whose slots were not purged. A chunk without any is
	// given up, in copies of refs and data, since views share the old ones.
	refsLeft, dataLeft []int32
	// Chunks of data that were given up: no ref of any view of this data leads there,
	// so that another chunk may take the place.
	free []int
	size int64 // bytes of the chunks there are
}

const (
	slotsPerChunk = 1024
	refsBytes     = 4 * slotsPerChunk
	chunkBytes    = 16 << 10
	entryAlign    = 4
	maxChunks     = (1<<32 - 1) / (chunkBytes / entryAlign) // as many as refs can tell apart
)

// slotView reads the slots that were put before it was taken.
type slotView struct {
	refs [][]uint32
	data [][]byte
	size int64
}

func (t *slotTable) view() slotView { return slotView{refs: t.refs, data: t.data, size: t.size} }

func (t *slotTable) put(slot index.Slot, id string, externalID *string, version uint64) {
	chunk, at := int(slot/slotsPerChunk), slot%slotsPerChunk
	for len(t.refs) <= chunk {
		t.refs, t.refsLeft = append(t.refs, nil), append(t.refsLeft, 0)
	}
	if t.refs[chunk] == nil {
		t.refs[chunk] = make([]uint32, slotsPerChunk)
		t.size += refsBytes
	}
	size := 4 + len(id) + binary.MaxVarintLen64
	if externalID != nil {
		size += 2 + len(*externalID)
	}
	if len(t.data) == 0 || t.used+size > chunkBytes {
		t.addChunk()
	}
	pos := t.last*chunkBytes + t.used
	b := t.data[t.last][t.used:t.used]
	head := uint16(len(id)) << 1
	if externalID != nil {
		head |= 1
	}
	b = binary.LittleEndian.AppendUint16(b, head)
	b = append(b, id...)
	b = binary.AppendUvarint(b, version)
	if externalID != nil {
		b = binary.LittleEndian.AppendUint16(b, uint16(len(*externalID)))
		b = append(b, *externalID...)
	}
	t.used += (len(b) + entryAlign - 1) / entryAlign * entryAlign
	t.refs[chunk][at] = uint32(pos/entryAlign) + 1
	t.refsLeft[chunk]++
	t.dataLeft[t.last]++
}

// addChunk begins another chunk of data, in the place of one that was given up if there
// is one: places are not without end.
func (t *slotTable) addChunk() {
	t.used = 0
	t.size += chunkBytes
	if n := len(t.free); n > 0 {
		t.last, t.free = t.free[n-1], t.free[:n-1]
		t.data[t.last] = make([]byte, chunkBytes)
		return
	}
	if t.last = len(t.data); t.last >= maxChunks {
		panic(fmt.Sprintf("raftfsm: the document ids of one collection take more than %d GiB; split the collection", maxChunks*chunkBytes>>30))
	}
	t.data, t.dataLeft = append(t.data, make([]byte, chunkBytes)), append(t.dataLeft, 0)
}

// purge gives up the entries of slots that no later view can see.
func (t *slotTable) purge(slots []index.Slot) {
	refs, data := t.refs, t.data
	for _, slot := range slots {
		chunk := int(slot / slotsPerChunk)
		if chunk >= len(refs) || refs[chunk] == nil || refs[chunk][slot%slotsPerChunk] == 0 {
			continue // dead when the table was loaded
		}
		at := int(refs[chunk][slot%slotsPerChunk]-1) * entryAlign / chunkBytes
		t.refsLeft[chunk]--
		t.dataLeft[at]--
		if t.refsLeft[chunk] == 0 && chunk < len(refs)-1 {
			if &t.refs[0] == &refs[0] {
				t.refs = slices.Clone(refs)
			}
			t.refs[chunk] = nil
			t.size -= refsBytes
		}
		if t.dataLeft[at] == 0 && at != t.last {
			if &t.data[0] == &data[0] {
				t.data = slices.Clone(data)
			}
			t.data[at] = nil
			t.size -= chunkBytes
			t.free = append(t.free, at)
		}
	}
}

// bytes is what the slots of the view take of RAM.
func (v slotView) bytes() int64 { return v.size }

// entry is the encoded entry of a slot and all behind it; nil if there is none.
func (v slotView) entry(slot index.Slot) []byte {
	chunk := int(slot / slotsPerChunk)
	if chunk >= len(v.refs) || v.refs[chunk] == nil {
		return nil
	}
	ref := v.refs[chunk][slot%slotsPerChunk]
	if ref == 0 {
		return nil
	}
	pos := int(ref-1) * entryAlign
	return v.data[pos/chunkBytes][pos%chunkBytes:]
}

// idBytes is the document id of a slot, aliasing the table; nil if there is none.
func (v slotView) idBytes(slot index.Slot) []byte {
	b := v.entry(slot)
	if b == nil {
		return nil
	}
	n := int(binary.LittleEndian.Uint16(b) >> 1)
	return b[2 : 2+n]
}

// fill sets the id, version and external id of d; false if there is no slot.
func (v slotView) fill(slot index.Slot, d *Document) bool {
	b := v.entry(slot)
	if b == nil {
		return false
	}
	head := binary.LittleEndian.Uint16(b)
	b = b[2:]
	n := int(head >> 1)
	d.ID, b = string(b[:n]), b[n:]
	version, n := binary.Uvarint(b)
	d.Version, b = version, b[n:]
	if head&1 != 0 {
		n = int(binary.LittleEndian.Uint16(b))
		ext := string(b[2 : 2+n])
		d.ExternalID = &ext
	}
	return true
}
