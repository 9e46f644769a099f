// Package data keeps named bodies, such as maps and models, the same on every environment
// that is to hold them: by tier, site, label or name.
//
// A writer puts a body once, with a [Store]:
//
//	store := data.NewStore(b)
//	record, err := store.Put(ctx, data.Body{Name: "policy", For: messages.Audience{Tiers: []messages.Tier{messages.Robot}}}, file)
//	lines, err := store.Status(ctx) // who holds it, who is behind, by how much
//
// and each environment runs a [Holder], as `fleetbus agent` does:
//
//	err := data.NewHolder(nc, data.HolderConfig{Fleet: "factory", Environment: env, Dir: "/var/lib/robot/data"}).Run(ctx)
//
// # What is promised
//
//   - A body stands under its name in the holder's directory, whole and verified by SHA-256,
//     or the one before it does: it is written beside it, synced, and renamed.
//   - The holder acknowledges the digest that it has verified, and nothing before. Who is
//     away gets the body when it comes back; an interrupted download goes on where it
//     stopped, over a restart too.
//   - Of two writers that began with the same revision one is refused with code conflict:
//     a record is written by compare-and-set only, and never merged.
//   - A file that was damaged, deleted or changed on the disk is found and mended: at once
//     where its size or time of change tell, else within [DefaultDeep].
//   - A record that is lost removes nothing: only [Store.Remove], or an audience that the
//     environment is not part of any more, does.
//
// # What it costs others
//
// A holder downloads one body at a time and asks for 2 MiB at most before it has what it
// asked for, so a server has no more than that in its buffers for each of them. It measures
// round trips meanwhile and gives way where they grow: control and requests come first.
// Memory does not grow with a body. Give it a connection of its own.
//
// Package drift decides, this one acts.
package data
