// SPDX-License-Identifier: Apache-2.0

package check

// components returns the strongly connected components of more than one vertex,
// on the edges of the given kinds (Tarjan, without recursion: histories are
// longer than stacks are deep).
func (g *txnGraph) components(kinds edgeKind) [][]int {
	n := len(g.edges)
	succ := make([][]int, n)
	for v := range succ {
		for _, w := range sortedKeys(g.edges[v]) {
			if g.edges[v][w]&kinds != 0 {
				succ[v] = append(succ[v], w)
			}
		}
	}
	const unvisited = -1
	index, low := make([]int, n), make([]int, n)
	onStack := make([]bool, n)
	for i := range index {
		index[i] = unvisited
	}
	var stack []int
	var found [][]int
	counter := 0
	type frame struct{ v, next int }
	for root := range n {
		if index[root] != unvisited {
			continue
		}
		frames := []frame{{root, 0}}
		for len(frames) > 0 {
			f := &frames[len(frames)-1]
			v := f.v
			if f.next == 0 && index[v] == unvisited {
				index[v], low[v] = counter, counter
				counter++
				stack = append(stack, v)
				onStack[v] = true
			}
			descended := false
			for f.next < len(succ[v]) {
				w := succ[v][f.next]
				f.next++
				if index[w] == unvisited {
					frames = append(frames, frame{w, 0})
					descended = true
					break
				}
				if onStack[w] {
					low[v] = min(low[v], index[w])
				}
			}
			if descended {
				continue
			}
			frames = frames[:len(frames)-1]
			if len(frames) > 0 {
				p := frames[len(frames)-1].v
				low[p] = min(low[p], low[v])
			}
			if low[v] != index[v] {
				continue
			}
			var comp []int
			for {
				w := stack[len(stack)-1]
				stack = stack[:len(stack)-1]
				onStack[w] = false
				comp = append(comp, w)
				if w == v {
					break
				}
			}
			if len(comp) > 1 {
				found = append(found, comp)
			}
		}
	}
	return found
}

// step is an edge of a cycle.
type step struct {
	from, to int
	kind     edgeKind
}

// shortestCycle returns a cycle of fewest edges through one of the component's
// first vertices (all of a small component).
func (g *txnGraph) shortestCycle(comp []int, kinds edgeKind) []step {
	in := make(map[int]bool, len(comp))
	for _, v := range comp {
		in[v] = true
	}
	const maxStarts = 64
	var best []step
	for i, start := range comp {
		if i == maxStarts {
			break
		}
		if c := g.cycleFrom(start, in, kinds); c != nil && (best == nil || len(c) < len(best)) {
			best = c
		}
	}
	return best
}

// cycleFrom walks breadth first from start back to it.
func (g *txnGraph) cycleFrom(start int, in map[int]bool, kinds edgeKind) []step {
	via := make(map[int]step)
	queue := []int{start}
	for len(queue) > 0 {
		v := queue[0]
		queue = queue[1:]
		for _, w := range sortedKeys(g.edges[v]) {
			k := g.edges[v][w] & kinds
			if k == 0 || !in[w] {
				continue
			}
			s := step{v, w, lowest(k)}
			if w == start {
				cycle := []step{s}
				for v != start {
					s = via[v]
					cycle = append(cycle, s)
					v = s.from
				}
				for i, j := 0, len(cycle)-1; i < j; i, j = i+1, j-1 {
					cycle[i], cycle[j] = cycle[j], cycle[i]
				}
				return cycle
			}
			if _, seen := via[w]; !seen {
				via[w] = s
				queue = append(queue, w)
			}
		}
	}
	return nil
}

// lowest is the strongest of several kinds of edge between two vertices.
func lowest(k edgeKind) edgeKind { return k & -k }
