package monitor

import (
	"fmt"
	"io/fs"
	"math"
	"path"
	"strconv"
	"strings"

	"github.com/fleetbus/fleetbus/messages"
)

// What the kernel says in files is read through an fs.FS, whose root is that of the machine.

// text is what a small file says, without the space around it; "" where it says nothing.
func text(files fs.FS, name string) string {
	data, err := fs.ReadFile(files, name)
	if err != nil {
		return ""
	}
	return strings.Trim(string(data), " \n\x00")
}

func number(files fs.FS, name string) (float64, bool) {
	v, err := strconv.ParseFloat(text(files, name), 64)
	return v, err == nil && !math.IsNaN(v) && !math.IsInf(v, 0)
}

// group is what the control groups of the agent grant it.
type group struct {
	quota  float64 // cores; 0: no limit
	used   float64 // seconds of CPU in the group that has the limit
	memory float64 // GB that may be used; 0: no limit
	held   float64 // GB that are used in the group that has that limit
}

// groupOf reads the control groups of this process. Every level on the way up limits what is
// below it; the tightest counts, and what is used there.
func groupOf(files fs.FS) (g group) {
	for line := range strings.Lines(text(files, "proc/self/cgroup")) {
		part := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(part) != 3 {
			continue
		}
		switch {
		case part[1] == "": // v2, also beside v1
			up(part[2], func(at string) { g.v2(files, path.Join("sys/fs/cgroup", at)) })
		case has(part[1], "cpu"):
			up(part[2], func(at string) { g.v1CPU(files, part[1], at) })
		case has(part[1], "memory"):
			up(part[2], func(at string) { g.v1Memory(files, path.Join("sys/fs/cgroup", part[1], at)) })
		}
	}
	return g
}

func has(list, name string) bool {
	for one := range strings.SplitSeq(list, ",") {
		if one == name {
			return true
		}
	}
	return false
}

// up calls each with a path and all above it.
func up(at string, each func(string)) {
	for at = path.Clean("/" + at); ; at = path.Dir(at) {
		each(at)
		if at == "/" {
			return
		}
	}
}

func (g *group) v2(files fs.FS, dir string) {
	if quota, period, ok := strings.Cut(text(files, dir+"/cpu.max"), " "); ok {
		g.cpu(quota, period, func() (float64, bool) {
			for line := range strings.Lines(text(files, dir+"/cpu.stat")) {
				if usec, ok := strings.CutPrefix(strings.TrimSpace(line), "usage_usec "); ok {
					v, err := strconv.ParseFloat(usec, 64)
					return v / 1e6, err == nil
				}
			}
			return 0, false
		})
	}
	limit, limited := number(files, dir+"/memory.max")
	used, _ := number(files, dir+"/memory.current")
	g.mem(limit, used-cached(files, dir, "inactive_file "), limited)
}

// cached is how much of a group's memory the kernel gives back when somebody asks for it: what
// was read of files and is not in use. A model that was loaded fills it.
func cached(files fs.FS, dir, field string) float64 {
	for line := range strings.Lines(text(files, dir+"/memory.stat")) {
		if n, ok := strings.CutPrefix(strings.TrimSpace(line), field); ok {
			v, err := strconv.ParseFloat(n, 64)
			if err == nil && v > 0 {
				return v
			}
		}
	}
	return 0
}

// v1CPU reads a group of the controller cpu, which cpuacct may be mounted beside or apart from.
func (g *group) v1CPU(files fs.FS, controllers, at string) {
	dir := path.Join("sys/fs/cgroup", controllers, at)
	if text(files, dir+"/cpu.cfs_quota_us") == "" {
		dir = path.Join("sys/fs/cgroup/cpu", at) // mounted as cpu,cpuacct where it is called cpuacct,cpu
	}
	g.cpu(text(files, dir+"/cpu.cfs_quota_us"), text(files, dir+"/cpu.cfs_period_us"), func() (float64, bool) {
		ns, ok := number(files, dir+"/cpuacct.usage")
		if !ok {
			ns, ok = number(files, path.Join("sys/fs/cgroup/cpuacct", at, "cpuacct.usage"))
		}
		return ns / 1e9, ok
	})
}

func (g *group) v1Memory(files fs.FS, dir string) {
	limit, limited := number(files, dir+"/memory.limit_in_bytes")
	used, _ := number(files, dir+"/memory.usage_in_bytes")
	g.mem(limit, used-cached(files, dir, "total_inactive_file "), limited)
}

// cpu takes in a quota of quota µs in each period; "max" and -1 are none.
func (g *group) cpu(quota, period string, used func() (float64, bool)) {
	q, err1 := strconv.ParseFloat(quota, 64)
	p, err2 := strconv.ParseFloat(period, 64)
	if err1 != nil || err2 != nil || !(q > 0) || !(p > 0) || g.quota > 0 && q/p >= g.quota {
		return
	}
	if u, ok := used(); ok {
		g.quota, g.used = q/p, u
	}
}

// noLimit is more memory than any machine has, bytes: v1 says so where there is no limit.
const noLimit = 1 << 60

func (g *group) mem(limit, used float64, ok bool) {
	if ok && limit > 0 && limit < noLimit && (g.memory == 0 || limit/1e9 < g.memory) {
		g.memory, g.held = limit/1e9, max(0, used)/1e9
	}
}

// battery is what the kernel shows of one that drives the machine; those of a mouse and
// the like say that they are a device's.
func battery(files fs.FS) (power string, charge float64) {
	supplies, _ := fs.Glob(files, "sys/class/power_supply/*")
	n := 0.0
	for _, dir := range supplies {
		v, ok := number(files, dir+"/capacity")
		if text(files, dir+"/type") != "Battery" || text(files, dir+"/scope") == "Device" || !ok {
			continue
		}
		if text(files, dir+"/status") == "Discharging" {
			power = messages.PowerBattery
		} else if power == "" {
			power = messages.PowerMains
		}
		charge += min(1, max(0, v/100))
		n++
	}
	return power, charge / max(1, n)
}

// jetson is the GPU of an NVIDIA Tegra, as its kernel shows it: it shares the machine's memory.
func jetson(files fs.FS) []messages.GPU {
	for _, pattern := range []string{
		"sys/devices/gpu.0/load", "sys/devices/platform/gpu.0/load", "sys/devices/platform/*.gpu/load", "sys/devices/platform/bus@0/*.gpu/load",
	} {
		found, _ := fs.Glob(files, pattern)
		for _, name := range found {
			if v, ok := number(files, name); ok {
				model := text(files, "proc/device-tree/model")
				if model == "" {
					model = "Tegra"
				}
				return []messages.GPU{{Name: model, Use: min(1, max(0, v/1000))}}
			}
		}
	}
	return nil
}

// ticks is how many of the kernel's ticks for user programs a second has, on Linux always.
const ticks = 100

// family is the seconds of CPU that a process and its descendants have used, and who they
// are. One that has ended counts with who has waited for it.
func family(files fs.FS, pid int) (sum float64, seen map[int]bool) {
	seen = make(map[int]bool)
	of := func(pid int) []int { return children(files, pid) }
	if self, _ := fs.Glob(files, fmt.Sprintf("proc/%d/task/*/children", pid)); len(self) == 0 {
		parents := allChildren(files) // kernels are built without that file, too
		of = func(pid int) []int { return parents[pid] }
	}
	for list := []int{pid}; len(list) > 0; {
		one := list[len(list)-1]
		list = list[:len(list)-1]
		if seen[one] {
			continue
		}
		seen[one] = true
		for _, f := range stat(files, one, 11, 15) {
			sum += max(0, f) / ticks // user, system, and the same of those that were waited for
		}
		list = append(list, of(one)...)
	}
	return sum, seen
}

// stat are some of the numbers in a process' stat file, counted from its state; none where it has
// gone. The name of a program, which stands before them, may have spaces and parentheses.
func stat(files fs.FS, pid, from, to int) (list []float64) {
	line := text(files, fmt.Sprintf("proc/%d/stat", pid))
	fields := strings.Fields(line[strings.LastIndexByte(line, ')')+1:])
	if len(fields) < to {
		return nil
	}
	for _, f := range fields[from:to] {
		v, err := strconv.ParseFloat(f, 64)
		if err != nil || math.IsNaN(v) || math.IsInf(v, 0) {
			return nil
		}
		list = append(list, v)
	}
	return list
}

// allChildren are the children of every process, found by their parents.
func allChildren(files fs.FS) map[int][]int {
	out := make(map[int][]int)
	entries, _ := fs.ReadDir(files, "proc") // those before an error count
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		if f := stat(files, pid, 1, 2); len(f) == 1 {
			out[int(f[0])] = append(out[int(f[0])], pid)
		}
	}
	return out
}

func children(files fs.FS, pid int) (list []int) {
	tasks, _ := fs.Glob(files, fmt.Sprintf("proc/%d/task/*/children", pid))
	for _, name := range tasks {
		for _, f := range strings.Fields(text(files, name)) {
			if child, err := strconv.Atoi(f); err == nil {
				list = append(list, child)
			}
		}
	}
	return list
}

// speed is what an interface says that it carries, Mbps; 0 where it does not say: those of
// radios and of containers do not.
func speed(files fs.FS, link string) float64 {
	v, ok := number(files, "sys/class/net/"+link+"/speed")
	if !ok || v < 0 {
		return 0
	}
	return v
}
