package router

import (
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

// doorStats counts. The zero value is ready to use; the methods may be called from many
// goroutines.
type doorStats struct {
	mu    sync.Mutex
	ends  map[string]*DoorStats
	total map[string]time.Duration
}

// begin counts a request in and returns what counts its end.
func (d *doorStats) begin(endpoint string, now time.Time) (end func(*messages.Error, time.Time)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.ends == nil {
		d.ends, d.total = make(map[string]*DoorStats), make(map[string]time.Duration)
	}
	s := d.ends[endpoint]
	if s == nil {
		s = &DoorStats{Errors: make(map[messages.Code]int)}
		d.ends[endpoint] = s
	}
	s.InFlight++
	return func(err *messages.Error, at time.Time) {
		d.mu.Lock()
		defer d.mu.Unlock()
		if s.InFlight--; err != nil {
			s.Errors[err.Code]++
			return
		}
		s.Answered++
		took := at.Sub(now)
		d.total[endpoint] += took
		s.MaxMS = max(s.MaxMS, inMillis(took))
		s.AvgMS = inMillis(d.total[endpoint] / time.Duration(s.Answered))
	}
}

// of returns the counts of an endpoint until now.
func (d *doorStats) of(endpoint string) DoorStats {
	d.mu.Lock()
	defer d.mu.Unlock()
	s := d.ends[endpoint]
	if s == nil {
		return DoorStats{}
	}
	out := *s
	out.Errors = make(map[messages.Code]int, len(s.Errors))
	for code, n := range s.Errors {
		out.Errors[code] = n
	}
	return out
}

func inMillis(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
