package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/fleetbus/fleetbus/agent"
)

// unitMark begins every unit that we write: what does not begin so is somebody else's.
const unitMark = "# Written by `fleetbus agent install`; it is replaced when that runs again.\n"

// unit is the service. KillMode mixed: a stop asks the agent, which asks its children; only
// what is left when the time is over is killed, with all of its children. It waits 10 s longer than
// the agent itself gives its requests. OOMPolicy continue: when the kernel ends a model server
// that wants too much memory, the agent starts that one again; systemd would stop them all.
func (in *installer) unit() string {
	line := append([]string{in.target(), "agent", "--config", in.config}, in.args...)
	for i := range line {
		line[i] = unitWord(line[i])
	}
	drain := in.drain
	if drain <= 0 {
		drain = agent.DefaultDrainTimeout
	}
	var groups []string
	for _, g := range []string{"video", "render"} { // of GPUs' devices
		if in.team(g) {
			groups = append(groups, g)
		}
	}
	more := ""
	if len(groups) > 0 {
		more = "SupplementaryGroups=" + strings.Join(groups, " ") + "\n"
	}
	return unitMark + `[Unit]
Description=fleetbus agent
Wants=network-online.target
After=network-online.target
StartLimitIntervalSec=0

[Service]
Type=exec
User=` + in.user + `
` + more + `ExecStart=` + strings.Join(line, " ") + `
Environment=XDG_STATE_HOME=/var/lib
StateDirectory=fleetbus
StateDirectoryMode=0750
Restart=always
RestartSec=2
KillMode=mixed
OOMPolicy=continue
TimeoutStopSec=` + fmt.Sprint(int((drain + 10*time.Second).Seconds())) + `
LimitNOFILE=65536
NoNewPrivileges=yes
ProtectSystem=full

[Install]
WantedBy=multi-user.target
`
}

// unitWord quotes a word for ExecStart: $ and % have meanings there.
func unitWord(s string) string {
	s = strings.NewReplacer("%", "%%", "$", "$$").Replace(s)
	if s != "" && !strings.ContainsAny(s, " \t\n\"'\\;") {
		return s
	}
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`, "\t", `\t`).Replace(s) + `"`
}
