package admin

import "slices"

// An order is where a row stands in a table: by its key, the largest first, then by its
// numbers.
type order struct {
	key  float64
	a, b uint64
}

func (o order) before(p order) bool {
	switch {
	case o.key != p.key:
		return o.key > p.key
	case o.a != p.a:
		return o.a < p.a
	}
	return o.b < p.b
}

// A top keeps the first most of all rows that it is given: a heap with the last of them at
// its root.
type top[T any] struct {
	most int
	of   []ranked[T]
	seen int
}

type ranked[T any] struct {
	at  order
	row T
}

func (t *top[T]) reset() { t.of, t.seen = t.of[:0], 0 }

// takes reports whether a row that stands there is one of the first, so far.
func (t *top[T]) takes(at order) bool {
	t.seen++
	return len(t.of) < t.most || t.most > 0 && at.before(t.of[0].at)
}

// add adds a row that takes has taken.
func (t *top[T]) add(at order, r T) {
	if len(t.of) < t.most {
		t.of = append(t.of, ranked[T]{at, r})
		for i := len(t.of) - 1; i > 0 && t.of[(i-1)/2].at.before(t.of[i].at); i = (i - 1) / 2 {
			t.of[i], t.of[(i-1)/2] = t.of[(i-1)/2], t.of[i]
		}
		return
	}
	t.of[0] = ranked[T]{at, r}
	for i := 0; ; {
		last := i
		for _, k := range [2]int{2*i + 1, 2*i + 2} {
			if k < len(t.of) && t.of[last].at.before(t.of[k].at) {
				last = k
			}
		}
		if last == i {
			return
		}
		t.of[i], t.of[last] = t.of[last], t.of[i]
		i = last
	}
}

// rows returns what is kept from one row on, in order.
func (t *top[T]) rows(from int) []ranked[T] {
	slices.SortFunc(t.of, func(x, y ranked[T]) int {
		if x.at.before(y.at) {
			return -1
		}
		return 1
	})
	return t.of[min(from, len(t.of)):]
}
