/*
 * HER2: remove from the open image exactly what her2bridge wrote (research use only).
 *
 * That is: its tiles wherever they are (those that you corrected too), its annotations of labels that a model doubts,
 * its measurements on annotations, its keys in the image's metadata, its steps in the history. A reader's own score,
 * the classes in the class list and everything else stay. Saves nothing.
 *
 * Headless: QuPath script "HER2 - Clear results.groovy" -p project.qpproj [-i image] --save
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
    def ours = image.ours()
    def question = "Remove from ${image.name}: ${ours.tiles.size()} tiles (${ours.corrected} corrected by hand), " +
        "${ours.suspects.size()} suspect labels, measurements of ${ours.measured.size()} annotations, " +
        "${ours.keys.size()} keys of the metadata?"
    if (!her2.user.confirm('HER2: clear results', question, 'Remove')) {
        return
    }
    image.clear(ours)
    her2.syncProject()
    her2.later { her2.qupath?.refreshProject() }
}
