// SPDX-License-Identifier: Apache-2.0

package godocs

import (
	"hash/fnv"
	"math"
	"strings"
	"unicode"
)

// Dim is the dimension of the vectors.
const Dim = 768

// Weights of the features: whole words count most, their beginnings let related
// words meet ("compress", "compression"), pairs of words keep phrases together.
const (
	wordWeight   = 1.0
	pairWeight   = 0.5
	prefixWeight = 0.6
	prefixChars  = 5
	// nameFactor raises the words of the package's path and of the name.
	nameFactor = 2.0
	// maxWords: what a comment is about stands at its beginning; more words only
	// dilute it.
	maxWords = 40
	// spread is how many coordinates a feature adds to.
	spread = 6
)

// Embedder turns text into unit vectors: hashed n-grams, weighted by TF-IDF.
// Each feature adds to a few coordinates, with signs of its hash: two features
// that meet in one coordinate are then still nearly at right angles.
type Embedder struct {
	docs float64
	df   []float32 // by bucket: documents that have a feature there
}

// buckets of the document frequencies; a power of two.
const bucketBits = 18

// NewEmbedder counts in how many of the docs each feature occurs.
func NewEmbedder(docs []Doc) *Embedder {
	e := &Embedder{docs: float64(len(docs)), df: make([]float32, 1<<bucketBits)}
	for _, d := range docs {
		seen := map[uint64]bool{}
		for f := range features(d) {
			if !seen[f] {
				seen[f] = true
				e.df[f>>(64-bucketBits)]++
			}
		}
	}
	return e
}

// Doc embeds a comment with its name.
func (e *Embedder) Doc(d Doc) ([]float32, error) { return e.vector(features(d)) }

// Text embeds a question.
func (e *Embedder) Text(text string) ([]float32, error) {
	return e.vector(features(Doc{Text: text}))
}

func (e *Embedder) vector(tf map[uint64]float64) ([]float32, error) {
	acc := make([]float64, Dim)
	for f, n := range tf {
		df := float64(e.df[f>>(64-bucketBits)])
		w := weightOf(f) * (1 + math.Log(n)) * math.Log((e.docs+1)/(df+0.5))
		// Sums of floats depend on their order, and a map has none: rounding to
		// a grid makes each vector the same in every run.
		w = math.Round(w * (1 << 20))
		for x, i := f, 0; i < spread; i++ {
			x = mix(x + 1)
			if x&1 == 0 {
				w = -w
			}
			acc[x>>8%Dim] += w
		}
	}
	var norm float64
	for _, v := range acc {
		norm += v * v
	}
	if norm == 0 {
		return nil, ErrEmpty
	}
	out := make([]float32, Dim)
	for i, v := range acc {
		out[i] = float32(v / math.Sqrt(norm))
	}
	return out, nil
}

// Kinds of features in two bits of their hash.
const (
	kindMask   = 0b110
	kindWord   = 0b000
	kindPair   = 0b010
	kindPrefix = 0b100
)

func weightOf(f uint64) float64 {
	switch f & kindMask {
	case kindWord:
		return wordWeight
	case kindPair:
		return pairWeight
	}
	return prefixWeight
}

// features counts the n-grams of a doc, those of its name several times.
func features(d Doc) map[uint64]float64 {
	tf := map[uint64]float64{}
	addText(tf, d.Text, 1)
	addText(tf, d.Package+" "+d.Name, nameFactor)
	return tf
}

func addText(tf map[uint64]float64, text string, times float64) {
	previous := ""
	for i, w := range Words(text) {
		if i == maxWords {
			break
		}
		tf[hash(kindWord, w)] += times
		if previous != "" {
			tf[hash(kindPair, previous+" "+w)] += times
		}
		previous = w
		tf[hash(kindPrefix, w[:min(len(w), prefixChars)])] += times
	}
}

func hash(kind uint64, s string) uint64 {
	h := fnv.New64a()
	_, _ = h.Write([]byte{byte(kind)})
	_, _ = h.Write([]byte(s))
	x := h.Sum64()
	return mix(x)&^kindMask | kind // FNV alone mixes short texts badly
}

func mix(x uint64) uint64 {
	x ^= x >> 32
	x *= 0xd6e8feb86659fd93
	x ^= x >> 32
	x *= 0xd6e8feb86659fd93
	return x ^ x>>32
}

// Words splits a text into lower-case stems: NewReader is "new" and "reader".
func Words(text string) []string {
	var out []string
	var b strings.Builder
	flush := func() {
		if w := stem(b.String()); len(w) > 1 && !stopWord(w) {
			out = append(out, w)
		}
		b.Reset()
	}
	lower := false
	for _, r := range text {
		switch {
		case !unicode.IsLetter(r) && !unicode.IsDigit(r):
			flush()
			lower = false
			continue
		case unicode.IsUpper(r) && lower:
			flush()
		}
		lower = unicode.IsLower(r) || unicode.IsDigit(r)
		b.WriteRune(unicode.ToLower(r))
	}
	flush()
	return out
}

// stem cuts the commonest English endings.
func stem(w string) string {
	for _, end := range []string{"ations", "ation", "ings", "ing", "ions", "ion", "ers", "ies", "ed", "er", "es", "s", "e"} {
		if cut, ok := strings.CutSuffix(w, end); ok && len(cut) >= 4 {
			return cut
		}
	}
	return w
}

func stopWord(w string) bool {
	switch w {
	case "a", "an", "and", "are", "as", "at", "be", "by", "for", "from", "has", "if", "in", "is", "it", "its", "of", "on", "or",
		"that", "the", "then", "this", "to", "was", "will", "with", "which", "when", "not", "can", "may", "how", "do", "doe", "does", "into", "all", "any":
		return true
	}
	return false
}
