package monitor

import (
	"context"
	"encoding/csv"
	"errors"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/fleetbus/fleetbus/messages"
)

// nvidia-smi is asked again nvidiaEvery after its last answer: without a process that holds the
// driver an answer may take a second, and a child every half second would be a load of its
// own. nvidiaTime bounds it: a GPU that fell off its bus makes it hang. What it said is good
// for nvidiaGood. Where there is none it is looked for again after nvidiaAgain: drivers are
// installed while agents run.
const (
	nvidiaEvery = time.Second
	nvidiaTime  = 5 * time.Second
	nvidiaGood  = 3 * nvidiaTime
	nvidiaAgain = time.Minute
)

// gpus is what nvidia-smi said last.
type gpus struct {
	run  func(ctx context.Context, args ...string) ([]byte, error)
	life context.Context
	all  sync.WaitGroup

	mu     sync.Mutex
	list   []messages.GPU
	pids   map[int]bool // that hold memory of one
	at     time.Time
	asking bool
	next   time.Time
}

// mostSaid is how much of what nvidia-smi says is read, bytes: that of 16 GPUs has 2 kB, and
// that of their processes less than this.
const mostSaid = 64 << 10

// runNvidia runs nvidia-smi. One that does not end is killed with its output.
func runNvidia(ctx context.Context, args ...string) ([]byte, error) {
	return runBounded(exec.CommandContext(ctx, "nvidia-smi", args...))
}

// runBounded returns what a program says. One that says too much is an error, and ended.
func runBounded(cmd *exec.Cmd) ([]byte, error) {
	cmd.WaitDelay = time.Second
	var out bounded
	cmd.Stdout = &out
	err := cmd.Run()
	return out.said, err
}

type bounded struct{ said []byte }

func (b *bounded) Write(p []byte) (int, error) {
	if len(b.said)+len(p) > mostSaid {
		return 0, errors.New("it says too much") // nobody reads on: it ends when it writes
	}
	b.said = append(b.said, p...)
	return len(p), nil
}

// read returns what was said last, and asks again where that is due. It never waits.
func (g *gpus) read(now time.Time) (list []messages.GPU, pids map[int]bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.asking && !now.Before(g.next) && g.life.Err() == nil {
		g.asking = true
		g.all.Go(g.ask)
	}
	if now.Sub(g.at) > nvidiaGood {
		return nil, nil
	}
	return g.list, g.pids
}

func (g *gpus) ask() {
	ctx, cancel := context.WithTimeout(g.life, nvidiaTime)
	defer cancel()
	out, err := g.run(ctx, "--query-gpu=name,utilization.gpu,memory.used,memory.total,temperature.gpu", "--format=csv,noheader,nounits")
	list := parseGPUs(out)
	var pids map[int]bool
	if err == nil && len(list) > 0 {
		if apps, err := g.run(ctx, "--query-compute-apps=pid", "--format=csv,noheader,nounits"); err == nil {
			pids = parsePIDs(apps)
		}
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.asking, g.next = false, time.Now().Add(nvidiaEvery)
	switch {
	case errors.Is(err, exec.ErrNotFound) || err == nil && len(list) == 0:
		g.next = time.Now().Add(nvidiaAgain)
	case err == nil:
		g.list, g.pids, g.at = list, pids, time.Now()
	}
}

// parseGPUs reads a line for each GPU: name, use in percent, MiB in use, MiB, °C. What a GPU
// cannot say is "[N/A]" or the like, and 0.
func parseGPUs(out []byte) (list []messages.GPU) {
	r := csv.NewReader(strings.NewReader(string(out)))
	r.FieldsPerRecord, r.TrimLeadingSpace, r.LazyQuotes = -1, true, true
	lines, _ := r.ReadAll() // those before one that is no CSV count
	for _, f := range lines {
		if len(f) != 5 {
			continue
		}
		const mib = (1 << 20) / 1e9
		list = append(list, messages.GPU{Name: shortName(f[0]), Use: min(1, amount(f[1])/100), Memory: amount(f[2]) * mib, MemSize: amount(f[3]) * mib, Temp: amount(f[4])})
		if len(list) == 16 {
			break
		}
	}
	return list
}

func shortName(s string) string {
	if len(s) > 64 {
		s = s[:64]
	}
	return strings.ToValidUTF8(strings.TrimSpace(s), "")
}

func amount(s string) float64 {
	v, err := strconv.ParseFloat(strings.TrimSpace(s), 64)
	if err != nil || !(v > 0) || v > 1e12 {
		return 0
	}
	return v
}

func parsePIDs(out []byte) map[int]bool {
	pids := make(map[int]bool)
	for f := range strings.FieldsSeq(string(out)) {
		if pid, err := strconv.Atoi(f); err == nil {
			pids[pid] = true
		}
	}
	return pids
}
