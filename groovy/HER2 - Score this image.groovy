/*
 * HER2: score the open image (research use only).
 *
 * Needs one or more annotations of the class Tumor. If some of them are selected, you are asked whether only these
 * are to be classified anew; the score is always of all.
 * Writes tiles below the annotations, measurements on them, and the score into the image's metadata (Project, Edit
 * project metadata). Tiles of the class Negative are 0. Tiles that you reclassified stay and count as you say.
 * Nothing is saved: save the image when you like the result.
 *
 * Headless: QuPath script "HER2 - Score this image.groovy" -p project.qpproj [-i image] --save [-a key=value]
 * Settings: as -a key=value, or in a file "her2bridge settings.txt" beside this one.
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
    def selected = her2.viewer == null ? [] : image.selectedRegions(her2.settings.region_classes)
    if (selected) {
        def question = "Some of the regions are selected (${selected.size()}), not all. Which are to be classified " +
            'anew? The score is of all in either case.'
        def answer = her2.user.choose('HER2', question, ['All', 'Only the selected'])
        selected = answer == 'All' ? [] : selected
    }
    her2.scoreAndShow(selected: selected*.ID*.toString())
}
