/*
 * HER2: score images of the project, one after the other, and save each (research use only).
 *
 * Asks which. An image that is open with unsaved changes is left out: save it first. An image that fails stops no
 * other.
 * Needs and writes for each image what "HER2 - Score this image" does.
 *
 * Headless, QuPath itself goes from image to image, and this script scores the one at hand:
 * QuPath script "HER2 - Score project.groovy" -p project.qpproj --save
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
    if (her2.qupath == null || (her2.imageData != null && her2.viewer == null)) {
        her2.scoreAndShow([:])
        return
    }
    def entries = her2.entries
    def rows = entries.collect { entry ->
        def unsaved = her2.viewerOf(entry)?.imageData?.changed
        def score = entry.metadataMap[her2.names.metadata.score]
        def shown = score && !her2.settings.blind ? "${entry.imageName}: ${score}" : entry.imageName
        [name: shown, why: unsaved ? 'open with unsaved changes: save it first' : null, chosen: score == null]
    }
    def places = her2.user.pick('HER2: score project', 'Which images? Each is saved when it is scored.', rows)
    if (!places) {
        return
    }
    def progress = her2.user.progress('Scoring the project')
    def lines
    try {
        lines = her2.scoreEach(entries[places], progress)
    } finally {
        progress.close()
    }
    her2.later { her2.qupath.refreshProject() }
    her2.user.say('HER2: score project', lines.join('\n') + '\n\nResearch use only.')
}
