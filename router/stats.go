package router

import (
	"maps"
	"sync"
	"time"

	"github.com/fleetbus/fleetbus/messages"
)

// DoorStats is what became of the requests of one endpoint of a Service: the "data" in the
// answer to $SRV.STATS. The counts of package micro itself end when a request was taken in,
// because a Service answers it later: they know neither errors nor times.
type DoorStats struct {
	InFlight int                   `json:"in_flight"`
	Answered uint64                `json:"answered"`
	Errors   map[messages.Code]int `json:"errors,omitempty"` // by code
	AvgMS    float64               `json:"average_ms"`       // from its coming to its answer, of those that were answered
	MaxMS    float64               `json:"max_ms"`
}

// doorStats counts, by endpoint. The zero value is ready to use; the methods may be called
// from many goroutines.
type doorStats struct {
	mu   sync.Mutex
	ends map[string]*endStats
}

// endStats counts for one endpoint.
type endStats struct {
	mu    sync.Mutex
	count DoorStats
	total time.Duration
}

// endpoint returns what counts for an endpoint.
func (d *doorStats) endpoint(name string) *endStats {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.ends == nil {
		d.ends = make(map[string]*endStats)
	}
	s := d.ends[name]
	if s == nil {
		s = &endStats{count: DoorStats{Errors: make(map[messages.Code]int)}}
		d.ends[name] = s
	}
	return s
}

// of returns the counts of an endpoint until now.
func (d *doorStats) of(name string) DoorStats {
	s := d.endpoint(name)
	s.mu.Lock()
	defer s.mu.Unlock()
	out := s.count
	out.Errors = maps.Clone(s.count.Errors)
	if out.Answered > 0 {
		out.AvgMS = inMillis(s.total / time.Duration(out.Answered))
	}
	return out
}

// begin counts a request in; end must follow.
func (s *endStats) begin() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.count.InFlight++
}

// end counts the end of a request that came at came.
func (s *endStats) end(came, now time.Time, err *messages.Error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.count.InFlight--; err != nil {
		s.count.Errors[err.Code]++
		return
	}
	took := now.Sub(came)
	s.count.Answered++
	s.total += took
	s.count.MaxMS = max(s.count.MaxMS, inMillis(took))
}

func inMillis(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
