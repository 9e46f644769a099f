package main

import (
	"context"
	"fmt"

	"github.com/fleetbus/fleetbus/exchange/data"
	"github.com/fleetbus/fleetbus/exchange/data/drift"
	"github.com/fleetbus/fleetbus/messages/bus"
)

// synced tells who does not hold what it is to hold.
func (d *doctor) synced(ctx context.Context, b *bus.Bus) {
	if d.off {
		return // said already
	}
	if _, err := b.JS.KeyValue(ctx, bus.BucketName(b.Fleet, bus.DataKV)); err != nil {
		return // there are none, and a look must not make the bucket
	}
	records, lines, err := data.NewStore(b).Status(ctx)
	if err != nil {
		found, do := advice(err)
		d.add("synced data", warn, found, do)
		return
	}
	n, behind := 0, 0
	var failed []string
	for _, r := range records {
		if !r.Removed {
			n++
		}
	}
	for _, l := range lines {
		switch l.State {
		case drift.Synced:
		case drift.Failed:
			failed = append(failed, l.Agent+": "+l.Reason)
		default:
			behind++
		}
	}
	switch {
	case len(failed) > 0:
		d.add("synced data", warn, fmt.Sprintf("%d cannot be held: %s", len(failed), list(failed)), "mend what is said; it is tried again")
	case n == 0:
		d.add("synced data", good, "none", "")
	case behind > 0:
		d.add("synced data", good, fmt.Sprintf("%d; %d of %d copies are still to come: `fleetbus sync status`", n, behind, len(lines)), "")
	default:
		d.add("synced data", good, fmt.Sprintf("%d; all %d copies are there", n, len(lines)), "")
	}
}
