package report

// A Verdict is one condition of an SLO and whether it held.
type Verdict struct {
	Condition string  `json:"condition"`
	Value     float64 `json:"value"`
	Pass      bool    `json:"pass"`
}
