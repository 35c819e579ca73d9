/*
 * HER2: colour the tiles by the probability of one class, or by their classes again (research use only).
 *
 * Needs tiles of an earlier run, and a viewer. Writes nothing: it is the same as Measure, Show measurement maps.
 */

import qupath.lib.color.ColorMaps
import qupath.lib.gui.tools.MeasurementMapper

import static qupath.lib.gui.scripting.QPEx.getCurrentImageData
import static qupath.lib.gui.scripting.QPEx.getProject
import static qupath.lib.gui.scripting.QPEx.getQuPath

// her2bridge: written by `her2bridge scripts install`, do not edit
final String PYTHON = ''
final String SHARED = ''
final String INSTALLED = ''
// her2bridge: end

if (!SHARED) {
    throw new IllegalStateException('Not installed: run  her2bridge scripts install  in a terminal.')
}
def shared = new GroovyClassLoader(getClass().classLoader)
def her2script = shared.parseClass(new GroovyCodeSource(new File(SHARED, 'Her2Script.groovy'), 'UTF-8'))
her2script.run(python: PYTHON, shared: SHARED, installed: INSTALLED, binding: binding,
        qupath: getQuPath(), project: getProject(), imageData: getCurrentImageData()) { her2 ->
    def image = her2.image
    if (her2.viewer == null) {
        throw her2.failure('There is no viewer to colour tiles in.', image.name, 'Open the image in QuPath.')
    }
    def tiles = image.tiles
    if (!tiles) {
        throw her2.failure('There are no tiles of her2bridge here.', image.name, 'Run "HER2 - Score this image" first.')
    }
    def labels = her2.names.classes*.label
    def question = 'Colour the tiles by the probability of which class? 0 is the tile class Negative.'
    def answer = her2.user.choose('HER2', question, ['Their classes'] + labels)
    def chosen = her2.names.classes.find { it.label == answer }
    her2.later {
        def overlay = her2.viewer.overlayOptions
        if (chosen == null) {
            overlay.resetMeasurementMapper()
            return
        }
        def mapper = new MeasurementMapper(ColorMaps.defaultColorMap, chosen.probability, tiles)
        mapper.displayMinValue = 0
        mapper.displayMaxValue = 1
        overlay.measurementMapper = mapper
        overlay.fillDetections = true
    }
}
