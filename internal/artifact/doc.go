// Package artifact keeps what tasks run in the fleet's store of artifacts: a file under its
// SHA-256, so that it cannot change under a task that names it. `fleetbus artifacts` writes,
// agents read (agent/backend/deploy).
package artifact
