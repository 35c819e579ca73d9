/*
 * HER2: write the annotations and the tiles that you corrected as GeoJSON, for training or for another machine
 * (research use only).
 *
 * Needs an image; asks where to. Changes nothing in the image.
 * Headless: QuPath script "HER2 - Export labels.groovy" -p project.qpproj -i image -a output=labels.geojson.gz
 * Without output they go to her2bridge/labels/ in the project, one file an image.
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
    def given = her2.argument('output')
    def file = given ? new File(given) : her2.user.fileToSave('HER2: export labels', "${image.name}.geojson.gz")
    if (file == null) {
        file = her2.projectFile("labels/${image.entry?.ID}.geojson.gz")
        file.parentFile.mkdirs()
    }
    def count = image.exportLabels(file)
    her2.user.say('HER2: export labels', "${count} objects are in ${file}")
}
