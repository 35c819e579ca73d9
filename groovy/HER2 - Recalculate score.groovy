/*
 * HER2: compute the score of the open image again from the tiles that are there, without the network (research use
 * only).
 *
 * For use after you gave tiles another class by hand: they count as you say.
 * Needs tiles of an earlier run. Writes measurements and metadata as "HER2 - Score this image" does, and no tiles.
 * Saves nothing.
 *
 * Headless: QuPath script "HER2 - Recalculate score.groovy" -p project.qpproj [-i image] --save
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
    her2.scoreAndShow(recalculate: true)
}
