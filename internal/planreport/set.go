package planreport

import (
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/fleetbus/fleetbus/messages"
)

// Set changes one planning parameter, written as name=value: preset, weight_latency,
// weight_cost, resource_reserve_ratio or mode. The error is a [*messages.Error] that
// says what is allowed; s is then as it was.
func Set(s *messages.Settings, assignment string) error {
	name, value, ok := strings.Cut(assignment, "=")
	name, value = strings.TrimSpace(name), strings.TrimSpace(value)
	if !ok {
		return messages.Errorf(messages.CodeBadRequest, "found %q, allowed is name=value, like resource_reserve_ratio=0", assignment)
	}
	next := *s
	switch name {
	case "preset":
		presets := messages.Presets()
		preset, ok := presets[value]
		if !ok {
			return messages.Errorf(messages.CodeBadRequest, "preset: found %q, allowed are %s", value, strings.Join(slices.Sorted(maps.Keys(presets)), ", "))
		}
		preset.Mode = s.Mode
		next = preset
	case "mode":
		next.Mode = messages.Mode(value)
	case "weight_latency", "weight_cost", "resource_reserve_ratio":
		v, err := strconv.ParseFloat(value, 64)
		if err != nil {
			return messages.Errorf(messages.CodeBadRequest, "%s: found %q, allowed is a number", name, value)
		}
		*map[string]*float64{"weight_latency": &next.WeightLatency, "weight_cost": &next.WeightCost, "resource_reserve_ratio": &next.Reserve}[name] = v
	default:
		return messages.Errorf(messages.CodeBadRequest, "%s: unknown parameter, allowed are preset, weight_latency, weight_cost, resource_reserve_ratio, mode", name)
	}
	if err := next.Check(""); err != nil {
		return err
	}
	*s = next
	return nil
}
