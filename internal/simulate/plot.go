package simulate

import (
	"fmt"
	"image/color"
	"io"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgsvg"
)

// Plot writes an SVG with one chart a result: the replicas that were ready and
// paid for, and those that the demand filled.
func Plot(w io.Writer, results []Result, slots int) error {
	const width, height = 25 * vg.Centimeter, 7 * vg.Centimeter
	canvas := vgsvg.New(width, height*vg.Length(max(len(results), 1)))
	all := draw.New(canvas)
	for i, r := range results {
		p := plot.New()
		p.Title.Text = fmt.Sprintf("%s: %.2f %% missed, %.0f GPU-hours", r.Rule.Name, percent(r.Missed(), r.Arrived), r.GPUSeconds/3600)
		p.X.Label.Text, p.Y.Label.Text = "hours", "replicas"
		p.Y.Min = 0
		p.Legend.Top = true
		for _, line := range []struct {
			name  string
			color color.RGBA
			y     func(Point) float64
		}{
			{"demand ÷ slots", color.RGBA{200, 60, 40, 255}, func(p Point) float64 { return float64(p.Demand) / float64(slots) }},
			{"paid", color.RGBA{150, 150, 150, 255}, func(p Point) float64 { return float64(p.Paid) }},
			{"ready", color.RGBA{30, 90, 180, 255}, func(p Point) float64 { return float64(p.Ready) }},
		} {
			xys := make(plotter.XYs, len(r.Series))
			for i, s := range r.Series {
				xys[i] = plotter.XY{X: s.At / 3600, Y: line.y(s)}
			}
			l, err := plotter.NewLine(xys)
			if err != nil {
				return err
			}
			l.Color = line.color
			p.Add(l)
			p.Legend.Add(line.name, l)
		}
		top := height * vg.Length(len(results)-i)
		part := draw.Crop(all, 0, 0, top-height, top-all.Max.Y)
		p.Draw(part)
	}
	_, err := canvas.WriteTo(w)
	return err
}

func percent(part, whole int64) float64 {
	if whole == 0 {
		return 0
	}
	return 100 * float64(part) / float64(whole)
}
