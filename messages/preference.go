package messages

import (
	"maps"
	"slices"
	"strings"
)

// Preference says where a task would rather run. Unlike Task.Tiers, Sites and Labels it
// forbids nothing: an environment that does not meet it scores worse.
type Preference struct {
	Tiers   []Tier            `msgpack:"t,omitempty" json:"tiers,omitempty"`   // any of them; empty: no matter
	Sites   []string          `msgpack:"s,omitempty" json:"sites,omitempty"`   // likewise
	Labels  map[string]string `msgpack:"l,omitempty" json:"labels,omitempty"`  // all of them
	Penalty *float64          `msgpack:"p,omitempty" json:"penalty,omitempty"` // score for each of the three that is not met; nil: DefaultPenalty
}

// DefaultPenalty is what a preference weighs that does not say so: as much as 100 ms of
// delay at weight_latency 1. It is more than tiers differ by in most fleets, and less
// than letting a request pass its limit.
const DefaultPenalty = 100

// MaxScore bounds penalties and move prices, which are in units of score.
const MaxScore = 1e12

// Weight is the penalty of each part that is not met.
func (p *Preference) Weight() float64 {
	if p.Penalty != nil {
		return *p.Penalty
	}
	return DefaultPenalty
}

// Unmet lists the parts of p that e does not meet, each as a line for people. A nil
// preference is always met.
func (p *Preference) Unmet(e Environment) (out []string) {
	if p == nil {
		return nil
	}
	e = e.Normal()
	if len(p.Tiers) > 0 && !slices.Contains(p.Tiers, e.Tier) {
		tiers := make([]string, len(p.Tiers))
		for i, t := range p.Tiers {
			tiers[i] = string(t)
		}
		out = append(out, "it prefers tier "+strings.Join(tiers, " or "))
	}
	if len(p.Sites) > 0 && !slices.Contains(p.Sites, e.Site) {
		out = append(out, "it prefers site "+strings.Join(p.Sites, " or "))
	}
	if !p.labelled(e) {
		var labels []string
		for _, k := range slices.Sorted(maps.Keys(p.Labels)) {
			labels = append(labels, k+"="+p.Labels[k])
		}
		out = append(out, "it prefers "+strings.Join(labels, ", "))
	}
	return out
}

// CountUnmet is how many parts [Preference.Unmet] lists.
func (p *Preference) CountUnmet(e Environment) (n int) {
	if p == nil {
		return 0
	}
	e = e.Normal()
	if len(p.Tiers) > 0 && !slices.Contains(p.Tiers, e.Tier) {
		n++
	}
	if len(p.Sites) > 0 && !slices.Contains(p.Sites, e.Site) {
		n++
	}
	if !p.labelled(e) {
		n++
	}
	return n
}

func (p *Preference) labelled(e Environment) bool {
	for k, v := range p.Labels {
		if got, ok := e.Labels[k]; !ok || got != v {
			return false
		}
	}
	return true
}

// Equal reports whether two preferences, each of which may be nil, say the same.
func (p *Preference) Equal(o *Preference) bool {
	if p == nil || o == nil {
		return p == o
	}
	return p.Weight() == o.Weight() && slices.Equal(p.Tiers, o.Tiers) && slices.Equal(p.Sites, o.Sites) && maps.Equal(p.Labels, o.Labels)
}

// check returns the first thing wrong with p, which is t's, naming the field under the prefix.
func (p *Preference) check(prefix string, t Task) error {
	if p == nil {
		return nil
	}
	if len(p.Tiers)+len(p.Sites)+len(p.Labels) == 0 {
		return Errorf(CodeBadRequest, "%s: found nothing that is preferred, allowed are tiers, sites, labels; say one of them or leave it out", prefix)
	}
	if err := CheckAmount(prefix+".penalty", p.Weight(), 0, MaxScore, ""); err != nil {
		return err
	}
	for _, tier := range p.Tiers {
		if err := tier.Check(prefix + ".tiers"); err != nil {
			return err
		}
		if len(t.Tiers) > 0 && !slices.Contains(t.Tiers, tier) {
			return Errorf(CodeBadRequest, "%s.tiers: found %s, which the task's own tiers %v do not allow; what is preferred must be possible", prefix, tier, t.Tiers)
		}
	}
	for _, s := range p.Sites {
		if err := CheckName(prefix+".sites", s); err != nil {
			return err
		}
		if len(t.Sites) > 0 && !slices.Contains(t.Sites, s) {
			return Errorf(CodeBadRequest, "%s.sites: found %s, which the task's own sites %v do not allow; what is preferred must be possible", prefix, s, t.Sites)
		}
	}
	for _, k := range slices.Sorted(maps.Keys(p.Labels)) {
		if v, ok := t.Labels[k]; ok && v != p.Labels[k] {
			return Errorf(CodeBadRequest, "%s.labels: found %s=%s, but the task's own labels ask for %s=%s; what is preferred must be possible",
				prefix, shorten(k), shorten(p.Labels[k]), shorten(k), shorten(v))
		}
	}
	return nil
}
