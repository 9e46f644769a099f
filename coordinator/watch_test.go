package coordinator

import "testing"

func TestHearing(t *testing.T) {
	t.Parallel()
	type step struct {
		told uint64 // told since the check before
		last uint64 // written last
		deaf bool
	}
	for name, steps := range map[string][]step{
		"nothing happens":                   {{9, 9, false}, {9, 9, false}, {9, 9, false}},
		"it tells":                          {{9, 9, false}, {17, 17, false}, {19, 19, false}},
		"what was last is gone":             {{3, 9, false}, {3, 9, false}, {3, 9, false}},
		"it tells nothing more":             {{5, 9, false}, {5, 16, false}, {5, 16, true}},
		"it was deaf from the beginning":    {{5, 16, false}, {5, 16, true}},
		"it is late":                        {{9, 9, false}, {9, 16, false}, {16, 17, false}, {17, 18, false}, {18, 18, false}},
		"it is late, and then deaf":         {{9, 9, false}, {9, 16, false}, {16, 16, false}, {16, 17, false}, {16, 19, true}},
		"something is written all the time": {{9, 9, false}, {9, 16, false}, {9, 17, true}},
	} {
		h := hearing{listed: true, base: 9}
		for i, s := range steps {
			h.told = s.told
			if deaf := h.deaf(s.last); deaf != s.deaf {
				t.Errorf("%s, step %d: deaf is %v", name, i, deaf)
			}
		}
	}
	var h hearing
	for range 3 {
		if h.deaf(9) {
			t.Error("deaf before everything was listed")
		}
	}
}
