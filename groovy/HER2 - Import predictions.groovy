/*
 * HER2: bring in tiles that were classified on another machine (research use only).
 *
 * Needs the image with the annotations that were scored, and a file: of `her2bridge analyze --output`, or
 * her2bridge/results/<entry>.geojson.gz of the other machine's project. Asks for it.
 * Puts the tiles below their annotations in place of earlier ones; tiles that you corrected stay. Takes the earlier
 * score away, which was not of these tiles; "HER2 - Recalculate score" makes the new one. Saves nothing.
 *
 * Headless: QuPath script "HER2 - Import predictions.groovy" -p project.qpproj -i image --save -a file=tiles.geojson.gz
 */

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
    def given = her2.argument('file')
    def file = given ? new File(given) : her2.user.fileToOpen('HER2: import predictions')
    file = file ?: her2.projectFile("results/${image.entry?.ID}.geojson.gz")
    if (!file.isFile()) {
        throw her2.failure('There is no such file.', file.toString(), 'Name it: -a file=tiles.geojson.gz')
    }
    def count = image.importTiles(file)
    her2.syncProject()
    her2.later { her2.qupath?.refreshProject() }
    her2.user.say('HER2: import predictions', "${count} tiles came in. Run \"HER2 - Recalculate score\" for the score.")
}
