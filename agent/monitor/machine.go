package monitor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"time"

	"github.com/fleetbus/fleetbus/messages"
	"github.com/shirou/gopsutil/v4/cpu"
	"github.com/shirou/gopsutil/v4/disk"
	"github.com/shirou/gopsutil/v4/mem"
	psnet "github.com/shirou/gopsutil/v4/net"
	"github.com/shirou/gopsutil/v4/sensors"
)

// slowEvery is how often what changes slowly is read: sensors may sit behind a bus that takes
// milliseconds for each.
const slowEvery = 5 * time.Second

// Machine is the [Source] of the machine that this process runs on. On Linux everything is
// read; elsewhere what gopsutil can. Make it with [NewMachine], and close it.
type Machine struct {
	files fs.FS
	dir   string // on the disk that counts
	pid   int
	gpus  gpus
	end   context.CancelFunc

	mu    sync.Mutex
	link  string
	speed float64

	slowAt time.Time
	temp   float64
	power  string
	charge float64
}

// NewMachine makes the source of this machine; dir is where the agent keeps its data, or the
// nearest directory above it that is there.
func NewMachine(dir string) *Machine {
	life, end := context.WithCancel(context.Background())
	return &Machine{files: os.DirFS("/"), dir: existing(dir), pid: os.Getpid(), gpus: gpus{run: runNvidia, life: life}, end: end}
}

// closeTime is for how long it is waited for a nvidia-smi that was killed: one that waits for
// a GPU in the kernel, which is why it hangs, ends when that does, or never.
const closeTime = 2 * time.Second

// Close ends what a reading may have left running, and returns when it is gone, or cannot be
// ended.
func (m *Machine) Close() {
	m.gpus.mu.Lock() // none is begun from now on
	m.end()
	m.gpus.mu.Unlock()
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		m.gpus.all.Wait()
	}()
	timer := time.NewTimer(closeTime)
	defer timer.Stop()
	select {
	case <-gone:
	case <-timer.C:
	}
}

func existing(dir string) string {
	if dir == "" {
		return "/"
	}
	for dir, _ = filepath.Abs(dir); dir != filepath.Dir(dir); dir = filepath.Dir(dir) {
		if _, err := os.Stat(dir); err == nil {
			return dir
		}
	}
	return dir
}

// Reach says which link counts: the one by which the server is reached, at host:port.
func (m *Machine) Reach(server string) {
	name := linkTo(server)
	m.mu.Lock()
	defer m.mu.Unlock()
	m.link, m.speed = name, speed(m.files, name)
}

// linkTo is the interface that packets to an address leave by; "" where nobody can say.
func linkTo(server string) string {
	var d net.Dialer
	conn, err := d.DialContext(context.Background(), "udp", server) // sends nothing
	if err != nil {
		return ""
	}
	defer conn.Close()
	local, ok := conn.LocalAddr().(*net.UDPAddr)
	if !ok {
		return ""
	}
	links, _ := net.Interfaces()
	for _, l := range links {
		addrs, _ := l.Addrs()
		for _, a := range addrs {
			if n, ok := a.(*net.IPNet); ok && n.IP.Equal(local.IP) {
				return l.Name
			}
		}
	}
	return ""
}

// Read implements [Source].
func (m *Machine) Read(ctx context.Context) (Snapshot, error) {
	s := Snapshot{At: time.Now()}
	times, err := cpu.TimesWithContext(ctx, true)
	if err == nil && len(times) == 0 {
		err = errors.New("there are none")
	}
	if err != nil {
		return s, fmt.Errorf("the times of its cores: %w", err)
	}
	may := affinity()
	for _, both := range []bool{false, true} {
		for _, t := range times {
			if both || may == nil || may[t.CPU] {
				s.Cores++
				s.Busy += t.User + t.System + t.Nice + t.Irq + t.Softirq + t.Steal // guests are in user
			}
		}
		if s.Cores > 0 {
			break // else the names are others than those of the affinity: all count
		}
	}
	own, pids := family(m.files, m.pid)
	s.Own = own
	g := groupOf(m.files)
	if g.quota > 0 && g.quota < s.Cores {
		s.Quota, s.Group = g.quota, g.used
	}
	if v, err := mem.VirtualMemoryWithContext(ctx); err == nil {
		s.Memory, s.MemSize = gb(v.Total-min(v.Total, v.Available)), gb(v.Total)
	}
	if g.memory > 0 && (s.MemSize == 0 || g.memory < s.MemSize) {
		s.Memory, s.MemSize = g.held, g.memory
	}
	if u, err := disk.UsageWithContext(ctx, m.dir); err == nil {
		s.DiskSize = gb(u.Total)
		s.Disk = gb(u.Total - min(u.Total, u.Free)) // what root keeps for itself is not free
	}
	m.traffic(ctx, &s)
	m.slow(ctx, &s)
	list, holders := m.gpus.read(s.At)
	if s.GPUs = list; len(list) == 0 {
		s.GPUs, s.GPUOthers = jetson(m.files), true
	}
	for pid := range holders {
		if pids[pid] {
			s.GPUOwn = true
		} else {
			s.GPUOthers = true
		}
	}
	if len(list) > 0 && holders == nil {
		s.GPUOthers = true // nobody can tell
	}
	return s, nil
}

func gb(bytes uint64) float64 { return float64(bytes) / 1e9 }

func (m *Machine) traffic(ctx context.Context, s *Snapshot) {
	m.mu.Lock()
	s.Link, s.Speed = m.link, m.speed
	m.mu.Unlock()
	if s.Link == "" {
		return
	}
	links, err := psnet.IOCountersWithContext(ctx, true)
	if err != nil {
		return
	}
	for _, l := range links {
		if l.Name == s.Link {
			s.In, s.Out = l.BytesRecv, l.BytesSent
		}
	}
}

// slow fills in what is read now and then.
func (m *Machine) slow(ctx context.Context, s *Snapshot) {
	if s.At.Sub(m.slowAt) >= slowEvery {
		m.slowAt = s.At
		temps, _ := sensors.TemperaturesWithContext(ctx) // with an error for those that cannot be read
		m.temp = hottest(temps)
		m.power, m.charge = battery(m.files)
	}
	s.Temp, s.Power, s.Battery = m.temp, m.power, m.charge
}

// hottest is the highest temperature that can be one: some sensors say 255, and that of a
// Jetson's power chip 100, whatever happens.
func hottest(list []sensors.TemperatureStat) (most float64) {
	for _, t := range list {
		if t.Temperature > most && t.Temperature < 150 && !strings.Contains(strings.ToLower(t.SensorKey), "pmic") {
			most = t.Temperature
		}
	}
	return most
}

// Detected is what a machine seems to have, for those who do not say it.
type Detected struct {
	Capacity messages.Resources
	Model    string // of the processor
	Cores    float64
	Speed    bool // the link says what it carries
}

// unknownSpeed is taken for a link that does not say what it carries, Mbps, and unknownClock
// for a core that does not, GHz: little enough to promise nothing.
const (
	unknownSpeed = 100
	unknownClock = 1.5
)

// Detect reads a machine once and says what it has. Its compute is an estimate, clock times
// cores times what [Calibrate] finds a core to do per tick; calibrate it, or say it.
func (m *Machine) Detect(ctx context.Context) (Detected, error) {
	s, err := m.Read(ctx)
	if err != nil {
		return Detected{}, err
	}
	d := Detected{Cores: s.Cores}
	if s.Quota > 0 {
		d.Cores = s.Quota
	}
	clock := 0.0
	if info, err := cpu.InfoWithContext(ctx); err == nil && len(info) > 0 {
		d.Model, clock = info[0].ModelName, info[0].Mhz/1000
	}
	if d.Model == "" {
		d.Model = runtime.GOARCH
	}
	if !(clock > 0) {
		clock = unknownClock
	}
	d.Capacity = messages.Resources{Compute: d.Cores * clock * perTick / 1000, Storage: s.DiskSize, Network: s.Speed}
	if d.Speed = s.Speed > 0; !d.Speed {
		d.Capacity.Network = unknownSpeed
	}
	return d, nil
}
