module github.com/sluicerpc/sluice/benchmarks

go 1.25.0

require github.com/sluicerpc/sluice v0.0.0

replace github.com/sluicerpc/sluice => ../
