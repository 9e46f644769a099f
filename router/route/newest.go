package route

// Newest keeps, for every key, one value that is under way and the newest one that
// waits beside it: on a slow uplink a queue of observations would only make each of
// them older. The zero value is empty and ready.
type Newest[K, V comparable] struct {
	keys map[K]*pair[V]
}

type pair[V comparable] struct {
	wire, next V
	waits      bool
}

// Offer brings a value. start says that it may go at once; otherwise it waits, and
// replaced (where ok) is the one that waited until now and will never go.
func (n *Newest[K, V]) Offer(key K, v V) (start bool, replaced V, ok bool) {
	if n.keys == nil {
		n.keys = make(map[K]*pair[V])
	}
	p := n.keys[key]
	if p == nil {
		n.keys[key] = &pair[V]{wire: v}
		return true, replaced, false
	}
	replaced, ok = p.next, p.waits
	p.next, p.waits = v, true
	return false, replaced, ok
}

// Done says that the value under way has ended. next (where ok) is the one that waited
// and may go now.
func (n *Newest[K, V]) Done(key K) (next V, ok bool) {
	p := n.keys[key]
	if p == nil {
		return next, false
	}
	if !p.waits {
		delete(n.keys, key) // a key that is at rest costs nothing
		return next, false
	}
	var none V
	p.wire, p.next, p.waits = p.next, none, false
	return p.wire, true
}

// Withdraw takes back a value that waits. It reports false where v does not wait any
// more: it was replaced, or it is under way and must be ended with Done.
func (n *Newest[K, V]) Withdraw(key K, v V) bool {
	p := n.keys[key]
	if p == nil || !p.waits || p.next != v {
		return false
	}
	var none V
	p.next, p.waits = none, false
	return true
}

// Len returns how many keys have a value under way.
func (n *Newest[K, V]) Len() int { return len(n.keys) }
