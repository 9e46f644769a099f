package placement

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/fleetbus/fleetbus/messages"
)

var update = flag.Bool("update", false, "write the golden transcripts anew")

func float(v float64) *float64 { return &v }

// inference is model.md's inference task without storage.
func inference() messages.Task {
	return messages.Task{Name: "inference", Class: messages.Inference, Demand: messages.Resources{Compute: 10, Network: 50}, Transfer: float(10)}
}

// twoEdges is a cloud and two equal edge boxes, elected and with one inference task.
func twoEdges(w *world) {
	w.step(LinkUp{})
	w.desire()
	w.elect()
	w.add(environment("cloud", messages.Cloud, 1000, 1000, 50))
	w.add(environment("edge-1", messages.Edge, 100, 100, 10))
	w.add(environment("edge-2", messages.Edge, 100, 100, 10))
	w.run(500 * time.Millisecond)
	w.desire(inference())
	w.run(2 * time.Second)
	if w.log != nil {
		w.log.Reset() // the transcript "placed" shows how it came to that
	}
}

var transcripts = map[string]func(w *world){
	"placed": func(w *world) {
		w.step(LinkUp{})
		w.add(environment("edge-1", messages.Edge, 100, 100, 10))
		w.desire(inference())
		w.elect()
		w.run(2 * time.Second)
	},
	"killed-by-silence": func(w *world) {
		twoEdges(w)
		w.agents["edge-1"].kill()
		w.run(6 * time.Second)
		w.agents["edge-1"].start()
		w.run(20 * time.Second)
	},
	"killed-connection-closed": func(w *world) {
		twoEdges(w)
		w.run(5 * time.Second)
		a := w.agents["edge-1"]
		a.kill()
		w.step(ConnClosed{a.id, a.inc})
		w.run(3 * time.Second)
	},
	"restarted-in-time": func(w *world) {
		twoEdges(w)
		w.run(5 * time.Second)
		a := w.agents["edge-1"]
		a.kill()
		w.step(ConnClosed{a.id, a.inc})
		w.run(700 * time.Millisecond)
		a.start()
		w.run(5 * time.Second)
	},
	"leaves": func(w *world) {
		twoEdges(w)
		w.agents["edge-1"].leave()
		w.run(5 * time.Second)
	},
	"drained-and-back": func(w *world) {
		twoEdges(w)
		w.desired.Drains = []messages.DrainEntry{{Agent: "edge-1", Reason: "new fan"}, {Agent: "edge-2", Reason: "new fan"}}
		w.step(w.desired)
		w.run(time.Second)
		w.desired.Drains = nil
		w.step(w.desired)
		w.run(20 * time.Second)
	},
	"elected-again": func(w *world) {
		twoEdges(w)
		w.depose()
		w.run(time.Second)
		w.elect()
		w.run(20 * time.Second)
	},
	"keeps-failing": func(w *world) {
		twoEdges(w)
		for _, a := range w.agents {
			a.fails["other"] = a.env.Tier == messages.Edge
		}
		other := inference()
		other.Name = "other"
		w.desire(inference(), other)
		w.run(30 * time.Second)
	},
	"waits-for-room": func(w *world) {
		twoEdges(w)
		big := messages.Task{Name: "big", Class: messages.Inference, Demand: messages.Resources{Compute: 95}, Limit: 50, Work: float(10)}
		huge := messages.Task{Name: "huge", Class: messages.Inference, Demand: messages.Resources{Compute: 2000}}
		w.run(11 * time.Second) // the dwell of inference is over, so it may move aside
		w.desire(inference(), big, huge)
		w.run(5 * time.Second)
		second := big
		second.Replicas = 2
		w.desire(inference(), second)
		w.run(20 * time.Second)
	},
	"gives-way": func(w *world) {
		w.step(LinkUp{})
		w.add(environment("edge-1", messages.Edge, 100, 100, 10))
		low := messages.Task{Name: "low", Class: messages.Training, Demand: messages.Resources{Compute: 80}}
		w.desire(low)
		w.elect()
		w.run(3 * time.Second)
		high := messages.Task{Name: "high", Class: messages.Inference, Demand: messages.Resources{Compute: 80}, Priority: 1}
		w.desire(low, high)
		w.run(5 * time.Second)
	},
	"deleted": func(w *world) {
		twoEdges(w)
		w.desire()
		w.run(2 * time.Second)
	},
	"robot-away": func(w *world) {
		w.step(LinkUp{})
		w.desire(messages.Task{Name: "grip", Class: messages.Action, Per: messages.PerRobot, Demand: messages.Resources{Compute: 1}, Limit: 10})
		w.elect()
		w.add(environment("robot-1", messages.Robot, 10, 10, 1))
		w.run(3 * time.Second)
		w.agents["robot-1"].cut = true
		w.run(6 * time.Second)
		w.agents["robot-1"].cut = false
		w.run(3 * time.Second)
	},
}

func TestTranscripts(t *testing.T) {
	for name, play := range transcripts {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, 1)
			w.log = new(strings.Builder)
			play(w)
			file := filepath.Join("testdata", name+".txt")
			if *update {
				if err := os.WriteFile(file, []byte(w.log.String()), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if got := w.log.String(); got != string(want) {
				t.Errorf("the transcript changed (-update writes it anew):\n%s", got)
			}
		})
	}
}
