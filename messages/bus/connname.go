package bus

import (
	"strings"

	"github.com/fleetbus/fleetbus/messages"
)

// Names of connections. The server tells of a connection that was closed by its name
// alone, so the names of an agent's connections say which agent it is. They are evidence,
// and no proof: anybody may call a connection like that.
const (
	agentConn = "fleetbus agent "
	beatConn  = "fleetbus beats "
)

// AgentConn names the connection of an agent, and BeatConn that of its heartbeats.
func AgentConn(fleet, agent string) string { return agentConn + fleet + "/" + agent }

// BeatConn names the connection of an agent's heartbeats.
func BeatConn(fleet, agent string) string { return beatConn + fleet + "/" + agent }

// AgentOf returns whose connection a name is, and ok false for one that is no agent's.
func AgentOf(name string) (fleet, agent string, ok bool) {
	rest, ok := strings.CutPrefix(name, agentConn)
	if !ok {
		if rest, ok = strings.CutPrefix(name, beatConn); !ok {
			return "", "", false
		}
	}
	fleet, agent, ok = strings.Cut(rest, "/")
	if !ok || messages.CheckName("fleet", fleet) != nil || messages.CheckName("agent", agent) != nil {
		return "", "", false
	}
	return fleet, agent, true
}
