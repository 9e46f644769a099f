// Package order decides what becomes of mail, and does nothing: which way a sender's next
// message to a receiver goes, so that it overtakes none that waits ([Lane]), and whether a
// message that has come is new to its receiver ([Inbox]).
package order
