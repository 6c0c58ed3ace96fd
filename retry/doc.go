// Package retry makes calls again that have failed, as a policy for each method says: how often,
// after which codes, with which pauses, within a budget, or hedged.
package retry
