// Package gateway has what the front doors share: who may enter, how many, how often, and
// how they listen. The doors are the packages below it: openpi (policy clients on a
// WebSocket) and httpgate (the Open Inference Protocol over HTTP). Each asks with a
// router.Client, and so with its promises.
//
// A door listens on loopback. Elsewhere it needs keys, and says so.
package gateway
